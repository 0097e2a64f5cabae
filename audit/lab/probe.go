package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Probe is one attempt to reach a port.
type Probe struct {
	Proto Proto
	// From is any source address; the zero value lets the kernel choose.
	From netip.Addr
	// FromPort is the source port; 0 lets the kernel choose.
	FromPort uint16
	To       netip.AddrPort
	// Via is the server's interface that the packet of a client arrives on:
	// eth0 when empty. Any destination goes there, 127.0.0.1 too.
	Via string
	// In is the namespace that the probe starts from: the client when nil. A
	// probe from the server to itself is a local connection.
	In *Namespace
	// Device binds the probe's socket to an interface (SO_BINDTODEVICE).
	Device string
}

// String returns the probe in one line.
func (p Probe) String() string {
	where := "client"
	if p.In != nil {
		where = p.In.Name
	}
	s := fmt.Sprintf("%v %s", p.Proto, where)
	if p.From.IsValid() {
		s += " " + netip.AddrPortFrom(p.From, p.FromPort).String()
	} else if p.FromPort != 0 {
		s += " port " + strconv.Itoa(int(p.FromPort))
	}
	if p.Via != "" {
		s += " via " + p.Via
	}
	if p.Device != "" {
		s += " dev " + p.Device
	}
	return s + " -> " + p.To.String()
}

// Sight is what the client of a probe sees.
type Sight int

// What a client can see.
const (
	Timeout     Sight = iota // nothing came back
	Connected                // the handshake was completed, the datagram answered
	Refused                  // ECONNREFUSED: reset, or ICMP port unreachable
	Unreachable              // any other ICMP error, or no way out of the client
)

// String returns the word that a client would use.
func (s Sight) String() string {
	switch s {
	case Timeout:
		return "timeout"
	case Connected:
		return "connected"
	case Refused:
		return "refused"
	case Unreachable:
		return "unreachable"
	}
	return fmt.Sprintf("sight %d", int(s))
}

// Outcome is what became of a probe.
type Outcome struct {
	Probe      Probe
	ClientSees Sight
	// Errno is the error that the client's socket got, 0 for none.
	Errno unix.Errno
	// Delivery is where the probe arrived, nil if no listener of this process
	// saw it. A UDP datagram whose answer is lost is a timeout with a delivery;
	// a TCP connection is delivered when it was accepted.
	Delivery *Delivery
	// FromPort is the source port that was used.
	FromPort uint16
	// Tries is the number of attempts: a timeout was tried twice.
	Tries int
}

// Delivered reports whether a listener of this process saw the probe.
func (o Outcome) Delivered() bool { return o.Delivery != nil }

// String returns the outcome in one line.
func (o Outcome) String() string {
	s := fmt.Sprintf("%v: %v", o.Probe, o.ClientSees)
	if o.Errno != 0 {
		s += fmt.Sprintf(" (%s)", unix.ErrnoName(o.Errno))
	}
	if o.Delivery != nil {
		s += fmt.Sprintf(", delivered to %v in %s", o.Delivery.Local, o.Delivery.Namespace)
	}
	return s
}

// The waits: silence is believed after the first, and a suspected miss only
// after a second attempt with the longer one. IPv6 errors, which without
// IPV6_RECVERR meet a connecting TCP socket only at its second SYN, 1.02 s
// later, are read from the socket's error queue at once.
const (
	firstWait  = 350 * time.Millisecond
	secondWait = 800 * time.Millisecond
	// batchSize bounds the open sockets of a batch.
	batchSize = 800
)

// serial numbers the probes of this process.
var serial atomic.Uint64

// Probe makes all the attempts side by side and returns their outcomes in order.
// An attempt that seems to meet silence is made once more, with a new source
// port unless the probe names one, before it is called a timeout. A probe that
// cannot even be made (an address that cannot be bound, …) ends the test.
func (l *Lab) Probe(t testing.TB, probes ...Probe) []Outcome {
	t.Helper()
	l.probing.Lock()
	defer l.probing.Unlock()
	outcomes := l.round(t, probes, firstWait)
	var again []Probe
	var places []int
	samePort := false
	for i, o := range outcomes {
		if o.ClientSees == Timeout {
			again = append(again, o.Probe)
			places = append(places, i)
			samePort = samePort || o.Probe.FromPort != 0
		}
	}
	if len(again) == 0 {
		return outcomes
	}
	if samePort {
		// The same tuple would no longer be a new connection.
		for _, n := range l.namespaces {
			if err := n.FlushConntrack(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, o := range l.round(t, again, secondWait) {
		o.Tries = 2
		if o.Delivery == nil {
			o.Delivery = outcomes[places[i]].Delivery
		}
		outcomes[places[i]] = o
	}
	return outcomes
}

// ProbeOnce is Probe without the second attempt, for rules that count or
// remember what they saw. Silence is believed after wait.
func (l *Lab) ProbeOnce(t testing.TB, wait time.Duration, probes ...Probe) []Outcome {
	t.Helper()
	l.probing.Lock()
	defer l.probing.Unlock()
	return l.round(t, probes, wait)
}

// round makes every attempt once.
func (l *Lab) round(t testing.TB, probes []Probe, wait time.Duration) []Outcome {
	t.Helper()
	outcomes := make([]Outcome, 0, len(probes))
	for len(probes) > 0 {
		n := min(len(probes), batchSize)
		batch, err := l.batch(probes[:n], wait)
		if err != nil {
			t.Fatalf("probe: %v", err)
		}
		outcomes = append(outcomes, batch...)
		probes = probes[n:]
	}
	return outcomes
}

// Control proves that every probe connects, and is delivered to a listener of
// this process, while no namespace of the lab has any rule: it flushes all of
// them first. A "blocked" without it proves nothing.
func (l *Lab) Control(t testing.TB, probes ...Probe) {
	t.Helper()
	if len(probes) == 0 {
		t.Fatal("positive control of nothing")
	}
	for _, n := range l.namespaces {
		n.Flush(t)
	}
	var failed []string
	for _, o := range l.Probe(t, probes...) {
		if o.ClientSees != Connected || !o.Delivered() {
			failed = append(failed, o.String())
		}
	}
	if len(failed) > 0 {
		t.Fatalf("positive control: %d of %d probes do not arrive without any rule:\n%s", len(failed), len(probes), strings.Join(failed, "\n"))
	}
}

// attempt is a probe under way.
type attempt struct {
	fd      int
	token   token
	outcome Outcome
	done    bool
}

// batch runs attempts side by side until all are answered or wait has passed.
func (l *Lab) batch(probes []Probe, wait time.Duration) ([]Outcome, error) {
	attempts := make([]*attempt, len(probes))
	defer func() {
		for _, a := range attempts {
			if a != nil && a.fd >= 0 {
				unix.Close(a.fd)
			}
		}
	}()
	starts := make(map[*Namespace][]int)
	for i, p := range probes {
		in := p.In
		if in == nil {
			in = l.Client
		}
		if in == l.Client {
			if err := l.reachable(p); err != nil {
				return nil, err
			}
		}
		starts[in] = append(starts[in], i)
	}
	for in, indexes := range starts {
		var err error
		in.Do(func() {
			for _, i := range indexes {
				a := &attempt{fd: -1, token: newToken(serial.Add(1)), outcome: Outcome{Probe: probes[i], Tries: 1}}
				attempts[i] = a
				if err = l.start(a, in == l.Client); err != nil {
					err = fmt.Errorf("%v: %w", probes[i], err)
					return
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	if err := await(attempts, time.Now().Add(wait)); err != nil {
		return nil, err
	}
	l.collect(attempts)
	outcomes := make([]Outcome, len(attempts))
	for i, a := range attempts {
		outcomes[i] = a.outcome
	}
	return outcomes, nil
}

// reachable gives the server a neighbour entry for an IPv6 source on a link's
// own prefix, for which no neighbour discovery is answered. (ARP is: the
// client's routing takes every address for its own.)
func (l *Lab) reachable(p Probe) error {
	if !p.From.Is6() || l.neighbors[p.From] {
		return nil
	}
	l.neighbors[p.From] = true
	for i := range l.topology.Links {
		on := netip.PrefixFrom(linkAddr6(i, 0), 64)
		if !on.Contains(p.From) || p.From == linkAddr6(i, 1) {
			continue
		}
		client, err := l.Client.links.LinkByName(fmt.Sprintf("c%d", i))
		if err != nil {
			return fmt.Errorf("find c%d: %w", i, err)
		}
		server, err := l.Server.links.LinkByName(fmt.Sprintf("eth%d", i))
		if err != nil {
			return fmt.Errorf("find eth%d: %w", i, err)
		}
		return l.Server.neighbor(server.Attrs().Index, p.From, client.Attrs().HardwareAddr)
	}
	return nil
}

// start opens the socket of an attempt and sends its first packet, in the
// namespace of the calling thread.
func (l *Lab) start(a *attempt, client bool) (err error) {
	p := a.outcome.Probe
	kind := unix.SOCK_STREAM
	if p.Proto == UDP {
		kind = unix.SOCK_DGRAM
	}
	fam := family(p.To.Addr())
	a.fd, err = unix.Socket(fam, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(p.Proto))
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	options := []option{}
	if fam == unix.AF_INET {
		options = append(options, option{"IP_RECVERR", unix.SOL_IP, unix.IP_RECVERR, 1})
	} else {
		options = append(options, option{"IPV6_RECVERR", unix.SOL_IPV6, unix.IPV6_RECVERR, 1})
	}
	if p.FromPort != 0 {
		options = append(options, option{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1})
	} else if p.Proto == TCP {
		options = append(options, option{"IP_BIND_ADDRESS_NO_PORT", unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1})
	}
	if client {
		mark, err := l.markVia(p.Via)
		if err != nil {
			return err
		}
		options = append(options, option{"SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, int(mark)})
		// Any address may be the source: bind(2) and the route lookup take it.
		if fam == unix.AF_INET {
			options = append(options, option{"IP_TRANSPARENT", unix.SOL_IP, unix.IP_TRANSPARENT, 1})
		} else {
			options = append(options, option{"IPV6_TRANSPARENT", unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1})
		}
	} else if p.Via != "" {
		return errors.New("only a probe of the client chooses the interface it arrives on")
	}
	if err := setAll(a.fd, options); err != nil {
		return err
	}
	if p.Proto == TCP {
		if err := unix.SetsockoptLinger(a.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return fmt.Errorf("SO_LINGER: %w", err)
		}
	}
	if p.Device != "" {
		if err := unix.BindToDevice(a.fd, p.Device); err != nil {
			return fmt.Errorf("SO_BINDTODEVICE: %w", err)
		}
	}
	if p.From.IsValid() || p.FromPort != 0 {
		from := p.From
		if !from.IsValid() {
			from = netip.IPv6Unspecified()
			if fam == unix.AF_INET {
				from = netip.IPv4Unspecified()
			}
		}
		if family(from) != fam {
			return errors.New("source and destination are of different families")
		}
		if err := unix.Bind(a.fd, sockaddr(netip.AddrPortFrom(from, p.FromPort))); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
	}
	switch err := unix.Connect(a.fd, sockaddr(p.To)); {
	case err == nil || errors.Is(err, unix.EINPROGRESS):
	case errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("connect: %w", err)
	default:
		a.end(err)
	}
	if name, err := unix.Getsockname(a.fd); err == nil {
		a.outcome.FromPort = addrPort(name).Port()
	}
	if p.Proto == UDP && !a.done {
		if _, err := unix.Write(a.fd, a.token[:]); err != nil {
			a.end(err)
		}
	}
	return nil
}

// markVia returns the mark of the link that ends at an interface of the server.
func (l *Lab) markVia(via string) (uint32, error) {
	if via == "" {
		return markOf(0), nil
	}
	number, ok := strings.CutPrefix(via, "eth")
	i, err := strconv.Atoi(number)
	if !ok || err != nil || i < 0 || i >= l.topology.Links {
		return 0, fmt.Errorf("the server has no link %q", via)
	}
	return markOf(i), nil
}

// await polls until every attempt has ended or the time has come.
func await(attempts []*attempt, deadline time.Time) error {
	for {
		var polls []unix.PollFd
		var open []*attempt
		for _, a := range attempts {
			if !a.done {
				polls = append(polls, unix.PollFd{Fd: int32(a.fd), Events: a.wants()})
				open = append(open, a)
			}
		}
		left := time.Until(deadline)
		if len(open) == 0 || left <= 0 {
			return nil
		}
		n, err := unix.Poll(polls, int(left/time.Millisecond)+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		if n <= 0 {
			continue
		}
		for i, poll := range polls {
			if poll.Revents != 0 {
				open[i].progress(poll.Revents)
			}
		}
	}
}

// wants returns the event that ends the attempt well: a UDP socket is writable
// from the start.
func (a *attempt) wants() int16 {
	if a.outcome.Probe.Proto == UDP {
		return unix.POLLIN
	}
	return unix.POLLOUT
}

// progress takes in what poll saw on the socket.
func (a *attempt) progress(events int16) {
	if events&unix.POLLERR != 0 {
		if err := a.queuedError(); err != nil {
			a.end(err)
			return
		}
	}
	value, err := unix.GetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		a.end(err)
		return
	}
	if value != 0 {
		a.end(unix.Errno(value))
		return
	}
	if a.outcome.Probe.Proto == UDP {
		if events&unix.POLLIN == 0 {
			return
		}
		buffer := make([]byte, 64)
		n, err := unix.Read(a.fd, buffer)
		switch {
		case errors.Is(err, unix.EAGAIN):
		case err != nil:
			a.end(err)
		case n == len(a.token) && token(buffer[:n]) == a.token:
			a.end(nil)
		}
		return
	}
	if events&unix.POLLOUT == 0 {
		return
	}
	a.end(nil)
	_, _ = unix.Write(a.fd, a.token[:])
}

// queuedError reads the ICMP error that IP_RECVERR put in the error queue of the
// socket (struct sock_extended_err: ee_errno, ee_origin …; recv(2)).
func (a *attempt) queuedError() error {
	data, control := make([]byte, 512), make([]byte, 512)
	_, n, _, _, err := unix.Recvmsg(a.fd, data, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if err != nil {
		return nil //nolint:nilerr // an empty queue; SO_ERROR says the rest
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return nil //nolint:nilerr // the same
	}
	for _, m := range messages {
		isErr := m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR ||
			m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if isErr && len(m.Data) >= 4 {
			return unix.Errno(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return nil
}

// end settles what the client saw.
func (a *attempt) end(err error) {
	a.done = true
	var errno unix.Errno
	errors.As(err, &errno)
	a.outcome.Errno = errno
	a.outcome.ClientSees = sightOf(errno)
}

// sightOf names an errno of connect, send or the error queue by what it tells
// the client: the kernel's icmp_err_convert (net/ipv4/icmp.c) and
// icmpv6_err_convert (net/ipv6/icmp.c), and its own route lookup.
func sightOf(errno unix.Errno) Sight {
	switch errno {
	case 0:
		return Connected
	case unix.ECONNRESET, unix.EPIPE:
		// In SYN_SENT a reset is ECONNREFUSED (tcp_reset): this one came after
		// the handshake.
		return Connected
	case unix.ECONNREFUSED:
		return Refused
	case unix.ETIMEDOUT:
		return Timeout
	case unix.EPERM:
		// A rule of the sender's own output hook dropped the datagram.
		return Timeout
	case unix.ENOBUFS:
		// One of its egress hook did, which only sockets with IP_RECVERR are told
		// (udp_send_skb).
		return Timeout
	}
	return Unreachable
}

// collect finds where the attempts arrived, waiting for those whose client was
// answered: their token is on its way.
func (l *Lab) collect(attempts []*attempt) {
	deadline := time.NewTimer(firstWait)
	defer deadline.Stop()
	expired := false
	for _, a := range attempts {
		for {
			d, ok, more := l.recorder.take(a.token)
			if ok {
				a.outcome.Delivery = &d
				break
			}
			if expired || a.outcome.ClientSees != Connected {
				break
			}
			select {
			case <-more:
			case <-deadline.C:
				expired = true
			}
		}
	}
}
