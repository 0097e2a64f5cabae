package diagnose

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// The segments that every path carries: packets of 576 bytes (RFC 879), and of
// 1280 for IPv6 (RFC 8200, 5).
const (
	smallSegment4 = 536
	smallSegment6 = 1220
)

func (p *Probed) clamp(fd int) error {
	if p.segment == 0 {
		return nil
	}
	// Both sides keep to it: the handshake tells the peer (tcp_mss_to_mtu).
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, p.segment)
}

// smaller asks again with small segments where an answer stays away, wholly or
// from some byte on. It gives what was answered then, if the same question with
// segments of the usual size is left without an answer once more; nil otherwise.
func (p *Probed) smaller(ctx context.Context, t Target, limit time.Duration, now time.Time) *Probed {
	if p.To.Addr().IsLoopback() || limit < RemoteProbeLimit || p.unreachable() || !p.stuck() {
		return nil
	}
	ask := func(segment int) *Probed {
		q := &Probed{To: p.To, Headers: map[string]string{}, segment: segment}
		if t.TLS() || t.Scheme == "" {
			q.clientHello(ctx, t, limit, now)
		} else {
			q.upgrade(ctx, t, limit)
		}
		return q
	}
	segment := smallSegment4
	if p.To.Addr().Is6() {
		segment = smallSegment6
	}
	small := ask(segment)
	if small.unreachable() || small.stuck() || small.Closed {
		return nil
	}
	again := ask(0)
	if again.unreachable() || !again.stuck() {
		return nil
	}
	steps := append(p.Steps, again.Steps...)
	for _, s := range small.Steps {
		steps = append(steps, fmt.Sprintf("with segments of at most %d bytes: %s", segment, s))
	}
	small.SmallOnly, small.Steps = true, steps
	return small
}

// stuck: the last answer did not come, or not to its end.
func (p *Probed) stuck() bool { return p.Silent || p.Cut > 0 }
