package diagnose

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Resolution is what this host knows of a name: the hosts file, and each
// resolver's answer for each family. All of them are kept, so that a difference
// can be shown.
type Resolution struct {
	Name    string
	Hosts   []netip.Addr // of the hosts file, which programs ask first
	Answers []DNSAnswer
	// Search are the domains that a short name was tried with.
	Search []string
	Gaps   []string
}

// DNSAnswer is one resolver's answer to one question.
type DNSAnswer struct {
	Server netip.AddrPort
	Name   string // as asked, absolute
	Type   uint16 // 1 A, 28 AAAA
	// Outcome is "ok", "no-data", "nxdomain", "servfail", "refused", "timeout",
	// "error".
	Outcome string
	Addrs   []netip.Addr
	CNAMEs  []string
	Why     string // of an error
}

// Addrs are the addresses that a client would try: those of the hosts file,
// else of the first resolver that knew any; IPv6 after IPv4.
func (r *Resolution) Addrs() []netip.Addr {
	if len(r.Hosts) > 0 {
		return r.Hosts
	}
	var server netip.AddrPort
	var out []netip.Addr
	for _, a := range r.Answers {
		if len(a.Addrs) == 0 || server.IsValid() && a.Server != server {
			continue
		}
		server = a.Server
		for _, x := range a.Addrs {
			if !slices.Contains(out, x) {
				out = append(out, x)
			}
		}
	}
	return out
}

// CNAMEs are all aliases that the resolvers named.
func (r *Resolution) CNAMEs() []string {
	var out []string
	for _, a := range r.Answers {
		for _, c := range a.CNAMEs {
			if !slices.Contains(out, c) {
				out = append(out, c)
			}
		}
	}
	return out
}

// ResolveOptions steer Resolve.
type ResolveOptions struct {
	Root string // where etc/hosts and etc/resolv.conf lie, "" is /
	// Servers are asked instead of those of resolv.conf.
	Servers []netip.AddrPort
	// Limit is the deadline of one question, 0 means 2 seconds.
	Limit time.Duration
}

// Resolve looks a name up: in the hosts file, and at each resolver for A and
// AAAA. Its sockets are opened on the calling goroutine.
func Resolve(ctx context.Context, name string, o ResolveOptions) *Resolution {
	if o.Limit == 0 {
		o.Limit = 2 * time.Second
	}
	r := &Resolution{Name: name}
	if b, err := readSmall(o.Root, "etc/hosts"); err == nil {
		r.Hosts = parseHosts(b, name)
	} else if !errors.Is(err, fs.ErrNotExist) {
		r.Gaps = append(r.Gaps, err.Error())
	}
	if len(r.Hosts) == 0 && strings.EqualFold(strings.TrimSuffix(name, "."), "localhost") { // RFC 6761
		r.Hosts = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
		return r
	}
	conf := resolvConf{ndots: 1}
	if b, err := readSmall(o.Root, "etc/resolv.conf"); err == nil {
		conf = parseResolvConf(b)
	} else if len(o.Servers) == 0 {
		r.Gaps = append(r.Gaps, err.Error())
	}
	servers := o.Servers
	if len(servers) == 0 {
		servers = conf.servers
	}
	if len(servers) == 0 { // man 5 resolv.conf: the one on this host
		servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 53)}
	}
	names := conf.names(name)
	r.Search = conf.search
	for _, server := range servers[:min(len(servers), 3)] {
		silent := 0
		for i, n := range names {
			if silent == patience {
				r.Gaps = append(r.Gaps, fmt.Sprintf("%s was asked for %d of %d names, and did not answer the last %d", server, i, len(names), silent))
				break
			}
			silent++
			found := false
			for _, typ := range []uint16{typeA, typeAAAA} {
				a := ask(ctx, server, n, typ, o.Limit)
				r.Answers = append(r.Answers, a)
				found = found || len(a.Addrs) > 0
				if a.Outcome == "timeout" || a.Outcome == "error" {
					break // the same resolver will not answer the other question
				}
				silent = 0
			}
			if found {
				break
			}
		}
	}
	return r
}

// patience is after how many names without an answer a resolver is asked for no
// more of them: one may lie in a domain whose servers are away, all of a search list
// would take the operator's minute.
const patience = 2

type resolvConf struct {
	servers []netip.AddrPort
	search  []string
	ndots   int
}

// parseResolvConf reads resolv.conf(5).
func parseResolvConf(b []byte) resolvConf {
	c := resolvConf{ndots: 1}
	for line := range strings.Lines(string(b)) {
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil {
				c.servers = append(c.servers, netip.AddrPortFrom(a, 53))
			}
		case "search", "domain":
			c.search = f[1:min(len(f), 7)]
		case "options":
			for _, o := range f[1:] {
				if n, ok := strings.CutPrefix(o, "ndots:"); ok {
					if v, err := strconv.Atoi(n); err == nil && v >= 0 && v <= 15 {
						c.ndots = v
					}
				}
			}
		}
	}
	return c
}

// names are what the C library would ask for, in its order.
func (c resolvConf) names(name string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	absolute := name + "."
	var out []string
	for _, s := range c.search {
		out = append(out, name+"."+strings.TrimSuffix(s, ".")+".")
	}
	if strings.Count(name, ".") >= c.ndots {
		return append([]string{absolute}, out...)
	}
	return append(out, absolute)
}

// parseHosts finds the addresses of a name in hosts(5).
func parseHosts(b []byte, name string) []netip.Addr {
	name = strings.TrimSuffix(name, ".")
	var out []netip.Addr
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		a, err := netip.ParseAddr(f[0])
		if err != nil {
			continue
		}
		for _, n := range f[1:] {
			if strings.EqualFold(strings.TrimSuffix(n, "."), name) && !slices.Contains(out, a.Unmap()) {
				out = append(out, a.Unmap())
			}
		}
	}
	return out
}

const (
	typeA     = 1
	typeCNAME = 5
	typeAAAA  = 28
)

// ask sends one question over UDP, and over TCP where the answer is cut off.
func ask(ctx context.Context, server netip.AddrPort, name string, typ uint16, limit time.Duration) DNSAnswer {
	a := DNSAnswer{Server: server, Name: name, Type: typ, Outcome: "error"}
	id := uint16(rand.Uint32())
	q, err := question(id, name, typ)
	if err != nil {
		a.Why = err.Error()
		return a
	}
	end := time.Now().Add(limit)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	b, err := exchangeUDP(ctx, server, q, id, end)
	if err == nil && len(b) > 2 && b[2]&2 != 0 { // TC
		b, err = exchangeTCP(ctx, server, q, end)
	}
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			a.Outcome = "timeout"
		}
		a.Why = err.Error()
		return a
	}
	if err := parseAnswer(b, id, &a); err != nil {
		a.Outcome, a.Why = "error", err.Error()
	}
	return a
}

func exchangeUDP(ctx context.Context, server netip.AddrPort, q []byte, id uint16, end time.Time) ([]byte, error) {
	fd, err := dialSocket(server, unix.SOCK_DGRAM)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, 4096)
	for try := range 2 { // a lost packet is asked again half-way
		if _, err := unix.Write(fd, q); err != nil {
			return nil, fmt.Errorf("ask %s: %w", server, err)
		}
		until := end
		if try == 0 {
			until = time.Now().Add(time.Until(end) / 2)
		}
		for {
			if err := waitFor(ctx, fd, unix.POLLIN, until); err != nil {
				if ctx.Err() != nil {
					return nil, err
				}
				break
			}
			n, err := unix.Read(fd, b)
			if err != nil {
				return nil, fmt.Errorf("ask %s: %w", server, err)
			}
			if n >= 12 && binary.BigEndian.Uint16(b) == id {
				return b[:n], nil
			}
		}
	}
	return nil, fmt.Errorf("ask %s: %w", server, os.ErrDeadlineExceeded)
}

func exchangeTCP(ctx context.Context, server netip.AddrPort, q []byte, end time.Time) ([]byte, error) {
	fd, err := dialSocket(server, unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := waitFor(ctx, fd, unix.POLLOUT, end); err != nil {
		return nil, fmt.Errorf("ask %s over tcp: %w", server, err)
	}
	if _, err := unix.Write(fd, append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)); err != nil {
		return nil, fmt.Errorf("ask %s over tcp: %w", server, err)
	}
	var got []byte
	b := make([]byte, 4096)
	for len(got) < 2 || len(got) < 2+int(binary.BigEndian.Uint16(got)) {
		if err := waitFor(ctx, fd, unix.POLLIN, end); err != nil {
			return nil, fmt.Errorf("ask %s over tcp: %w", server, err)
		}
		n, err := unix.Read(fd, b)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("ask %s over tcp: %w", server, cmpErr(err, io.ErrUnexpectedEOF))
		}
		got = append(got, b[:n]...)
	}
	return got[2 : 2+int(binary.BigEndian.Uint16(got))], nil
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// dialSocket opens a connected socket on the calling goroutine.
func dialSocket(to netip.AddrPort, kind int) (int, error) { return dialPrepared(to, kind, nil) }

// dialPrepared is dialSocket with options set before it connects.
func dialPrepared(to netip.AddrPort, kind int, prepare func(fd int) error) (int, error) {
	family := unix.AF_INET
	if to.Addr().Is6() && !to.Addr().Is4In6() {
		family = unix.AF_INET6
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open a socket to %s: %w", to, err)
	}
	if prepare != nil {
		if err := prepare(fd); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("prepare a socket to %s: %w", to, err)
		}
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to %s: %w", to, err)
	}
	return fd, nil
}

// waitFor waits until a descriptor is ready.
func waitFor(ctx context.Context, fd int, events int16, end time.Time) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		left := time.Until(end)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		set := []unix.PollFd{{Fd: int32(fd), Events: events}}
		n, err := unix.Poll(set, int(min(left, 100*time.Millisecond)/time.Millisecond)+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 && err == nil {
			return nil
		}
	}
}
