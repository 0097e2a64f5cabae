package listeners

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"github.com/hostaudit/hostaudit/listeners/sockdiag"
)

// Connection is a TCP connection with what the kernel measures of it.
type Connection struct {
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
	State  string         `json:"state"`
	Inode  uint32         `json:"inode,omitempty"`
	// Unread are bytes that wait for the program, Held the memory that received
	// packets take: more than nothing, with nothing to be read, are packets that
	// came before an earlier one, which is missing.
	Unread uint32           `json:"unread,omitempty"`
	Held   uint32           `json:"held,omitempty"`
	Info   sockdiag.TCPInfo `json:"info"`
}

// Stuck tells that a connection's oldest segment has been sent again and again
// and nothing came of it.
func (c *Connection) Stuck() bool {
	return c.Info.Retransmits >= stalledFrom && c.Info.Unacked > 0
}

// FullSize tells that what is sent again are segments as large as they get: such
// ones vanish where the path carries smaller packets only and nobody says so.
func (c *Connection) FullSize() bool {
	i := c.Info
	return i.Retransmitted > 0 && i.SendMSS > 0 && i.BytesRetransmitted*10 >= uint64(i.Retransmitted)*uint64(i.SendMSS)*9
}

// Gap tells that later data has come and waits for earlier data, which stays
// away.
func (c *Connection) Gap() bool {
	return c.Unread == 0 && c.Held > 0 && c.Info.OutOfOrder > 0 && c.Info.SinceRecv >= 1000
}

const (
	timerRetransmit = 1 // ICSK_TIME_RETRANS as idiag_timer tells it
	stalledFrom     = 3 // timeouts in a row: 1.4 s at the least
	keepStalled     = 64
)

// stallKey is where to find stalled connections: by family and local port the
// kernel filters while it walks.
type stallKey struct {
	family sockdiag.Family
	port   uint16
}

func (t *tally) stall(p []byte) {
	if k := (stallKey{sockdiag.Family(p[0]), binary.BigEndian.Uint16(p[4:])}); !slices.Contains(t.stalled, k) {
		t.stalled = append(t.stalled, k)
	}
}

// readStalled asks about the connections that stalled while the sockets
// streamed past; those that go on meanwhile are left out.
func (t *tally) readStalled(ctx context.Context, src Source) ([]Connection, error) {
	var out []Connection
	for _, k := range t.stalled {
		if len(out) >= keepStalled {
			break
		}
		err := connections(ctx, src, sockdiag.Query{Family: k.family, Port: k.port}, func(c *Connection) {
			if c.Stuck() && len(out) < keepStalled {
				out = append(out, *c)
			}
		})
		if err != nil && !errors.Is(err, sockdiag.ErrInterrupted) { // some came or went meanwhile
			return out, err
		}
	}
	return out, nil
}

// ReadConnections gives the connections of this namespace by their own port and
// that of the other side, 0 for any, of both address families, at most limit.
func ReadConnections(ctx context.Context, src Source, port, peerPort uint16, limit int) ([]Connection, error) {
	var out []Connection
	for _, family := range []sockdiag.Family{sockdiag.Inet4, sockdiag.Inet6} {
		err := connections(ctx, src, sockdiag.Query{Family: family, Port: port, PeerPort: peerPort}, func(c *Connection) {
			if len(out) < limit {
				out = append(out, *c)
			}
		})
		if err != nil && !errors.Is(err, sockdiag.ErrInterrupted) && (family == sockdiag.Inet4 || !errors.Is(err, sockdiag.ErrUnsupported)) {
			return out, err
		}
	}
	return out, nil
}

// carrying are the states in which data may wait for an acknowledgement.
var carrying = sockdiag.Mask(sockdiag.Established, sockdiag.CloseWait, sockdiag.FinWait1, sockdiag.FinWait2, sockdiag.LastAck, sockdiag.Closing)

func connections(ctx context.Context, src Source, q sockdiag.Query, each func(*Connection)) error {
	q.Protocol, q.States, q.Want = sockdiag.TCP, carrying, sockdiag.WantInfo|sockdiag.WantSKMemInfo
	return src.Dump(ctx, q, func(b []byte) error {
		return sockdiag.Records(b, binary.NativeEndian, func(r sockdiag.Record) error {
			if r.TCP.Known {
				c := &Connection{
					Local: netip.AddrPortFrom(r.Src.Unmap(), r.SrcPort), Remote: netip.AddrPortFrom(r.Dst.Unmap(), r.DstPort),
					State: r.State.String(), Inode: r.Inode, Unread: r.RecvQueue, Held: r.Memory.Value.RecvUsed, Info: r.TCP.Value,
				}
				each(c)
			}
			return nil
		})
	})
}
