package diagnose

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Attempt is one connection tried from here.
type Attempt struct {
	To netip.AddrPort `json:"to"`
	// From is the address that the kernel chose, invalid where it came to none.
	From netip.AddrPort `json:"from"`
	Sees Sees           `json:"client_sees"`
	// Errno is its name ("ECONNREFUSED"), "" where there was none.
	Errno string `json:"errno,omitempty"`
	// Stage is where the error came: "bind" or "connect".
	Stage string  `json:"stage"`
	Took  float64 `json:"took"` // seconds
	// ICMP is the error message behind it, where the kernel told (Linux 5.8).
	ICMP *ICMP `json:"icmp,omitempty"`
	// Route is what the kernel's own lookup says of the way there.
	Route *Way `json:"route,omitempty"`
	// Wire is what a tap saw of the attempt, nil without the privilege.
	Wire *Wire `json:"wire,omitempty"`

	errno unix.Errno
}

// ICMP is an ICMP error about a connection.
type ICMP struct {
	From netip.Addr `json:"from"` // the box that sent it
	Type uint8      `json:"type"`
	Code uint8      `json:"code"`
	// MTU is the next link's, of an error that says that a packet does not fit.
	MTU int `json:"mtu,omitempty"`
}

// Wire counts the packets of one connection as they passed this host's links
// other than lo.
type Wire struct {
	SYN    int `json:"syn"`
	SYNACK int `json:"syn_ack"`
	RST    int `json:"rst"`
	ICMP   int `json:"icmp"`
	// Loopback counts all of them that passed lo: answers of this host's own
	// rules to its own packets come by it.
	Loopback int `json:"loopback,omitempty"`
}

// loopbackIndex is lo's in every network namespace (LOOPBACK_IFINDEX of
// include/linux/net.h).
const loopbackIndex = 1

// ConnectOptions steer Connect.
type ConnectOptions struct {
	// Limit is the deadline of the attempts together; 0 means 4 seconds, a little
	// more than the kernel needs to find that nobody answers ARP.
	Limit time.Duration
	// Source is an address to bind before connecting, as programs with a source
	// address do; invalid to let the kernel choose.
	Source netip.Addr
	// Watch sees the packets of the attempts while they run; may be nil.
	Watch *Tap
}

// Connect tries a TCP connection to each address, side by side, and closes it at
// once. Its sockets are opened on the calling goroutine.
func Connect(ctx context.Context, to []netip.AddrPort, o ConnectOptions) []Attempt {
	if o.Limit == 0 {
		o.Limit = 4 * time.Second
	}
	end := time.Now().Add(o.Limit)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	as := make([]Attempt, len(to))
	fds := make([]int, len(to))
	began := make([]time.Time, len(to))
	for i := range to {
		as[i], fds[i] = start(to[i], o.Source)
		began[i] = time.Now()
	}
	seen := newWireLog()
	for {
		var set []unix.PollFd
		var which []int
		for i, fd := range fds {
			if fd >= 0 {
				set = append(set, unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT})
				which = append(which, i)
			}
		}
		left := time.Until(end)
		if len(set) == 0 || left <= 0 || ctx.Err() != nil {
			break
		}
		if o.Watch != nil {
			set = append(set, unix.PollFd{Fd: int32(o.Watch.fd), Events: unix.POLLIN})
		}
		// In short steps, so that a cancelled context ends it.
		if _, err := unix.Poll(set, int(min(left, 100*time.Millisecond)/time.Millisecond)+1); err != nil && !errors.Is(err, unix.EINTR) {
			break
		}
		seen.drain(o.Watch)
		for k, i := range which {
			if set[k].Revents == 0 {
				continue
			}
			a := &as[i]
			a.Took = time.Since(began[i]).Seconds()
			if n, err := unix.GetsockoptInt(fds[i], unix.SOL_SOCKET, unix.SO_ERROR); err != nil {
				a.fail("connect", asErrno(err))
			} else if n != 0 {
				a.fail("connect", unix.Errno(n))
				a.ICMP = errorQueue(fds[i])
			} else {
				a.Sees = Connected
			}
			a.From = localOf(fds[i], a.From)
			if a.Sees == Connected {
				// No lingering: the probe leaves no TIME_WAIT behind.
				_ = unix.SetsockoptLinger(fds[i], unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			}
			unix.Close(fds[i])
			fds[i] = -1
		}
	}
	for i, fd := range fds {
		if fd < 0 {
			continue
		}
		as[i].Sees, as[i].Took = Timeout, time.Since(began[i]).Seconds()
		as[i].From = localOf(fd, as[i].From)
		unix.Close(fd)
	}
	if o.Watch != nil {
		time.Sleep(2 * time.Millisecond) // packets that passed just now
		seen.drain(o.Watch)
		if n, err := o.Watch.Lost(); err == nil && n == 0 { // else what was not seen may have been there
			for i := range as {
				as[i].Wire = seen.of(as[i])
			}
		}
	}
	return as
}

// start begins one attempt; the descriptor is -1 where it is over already.
func start(to netip.AddrPort, source netip.Addr) (Attempt, int) {
	a := Attempt{To: to, Stage: "connect"}
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		a.fail("socket", asErrno(err))
		return a, -1
	}
	done := func(stage string, err error) (Attempt, int) {
		a.fail(stage, asErrno(err))
		a.ICMP = errorQueue(fd)
		a.From = localOf(fd, a.From)
		unix.Close(fd)
		return a, -1
	}
	// Where the kernel supports it the error queue names the box that answered
	// (tcp_v4_err; Linux 5.8). Without it nothing is lost.
	if family == unix.AF_INET {
		_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1)
	} else {
		_ = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
	}
	if source.IsValid() && source.Is4() == to.Addr().Is4() {
		a.From = netip.AddrPortFrom(source, 0)
		if err := unix.Bind(fd, sockaddr(a.From)); err != nil {
			return done("bind", err)
		}
	}
	switch err := unix.Connect(fd, sockaddr(to)); {
	case err == nil, errors.Is(err, unix.EINPROGRESS), errors.Is(err, unix.EINTR):
		return a, fd
	default:
		return done("connect", err)
	}
}

// fail notes an error and what it means.
func (a *Attempt) fail(stage string, e unix.Errno) {
	a.Stage, a.errno, a.Errno = stage, e, unix.ErrnoName(e)
	switch e {
	case unix.ECONNREFUSED:
		a.Sees = Refused
	case unix.ETIMEDOUT:
		a.Sees = Timeout
	case unix.EADDRNOTAVAIL, unix.EADDRINUSE:
		a.Sees = CannotAssign
	case unix.ECONNRESET:
		a.Sees = ProtocolError
	default:
		a.Sees = Unreachable
	}
}

func asErrno(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func localOf(fd int, known netip.AddrPort) netip.AddrPort {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return known
	}
	var ap netip.AddrPort
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		ap = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		ap = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	if !ap.IsValid() || ap.Addr().IsUnspecified() {
		return known
	}
	return ap
}

// errorQueue takes the ICMP error from a socket's error queue, nil for none.
func errorQueue(fd int) *ICMP {
	oob := make([]byte, 256)
	_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 256), oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if err != nil {
		return nil
	}
	return parseErrorQueue(oob[:n])
}

// parseErrorQueue reads struct sock_extended_err and the offender behind it
// (man 7 ip, IP_RECVERR).
func parseErrorQueue(oob []byte) *ICMP {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range msgs {
		four := m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR
		six := m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if !four && !six || len(m.Data) < 16 {
			continue
		}
		if o := m.Data[4]; o != unix.SO_EE_ORIGIN_ICMP && o != unix.SO_EE_ORIGIN_ICMP6 {
			continue
		}
		x := &ICMP{Type: m.Data[5], Code: m.Data[6]}
		if binary.NativeEndian.Uint32(m.Data) == uint32(unix.EMSGSIZE) {
			x.MTU = int(binary.NativeEndian.Uint32(m.Data[8:])) // ee_info
		}
		offender := m.Data[16:]
		if len(offender) >= 2 {
			switch binary.NativeEndian.Uint16(offender) {
			case unix.AF_INET:
				if len(offender) >= 8 {
					x.From = netip.AddrFrom4([4]byte(offender[4:8]))
				}
			case unix.AF_INET6:
				if len(offender) >= 24 {
					x.From = netip.AddrFrom16([16]byte(offender[8:24])).Unmap()
				}
			}
		}
		return x
	}
	return nil
}

// String says what a message means, as RFC 792, 1122, 1812 and 4443 name it.
func (x *ICMP) String() string {
	name := ""
	if x.From.Is4() && x.Type == 3 {
		name = map[uint8]string{0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable", 9: "network prohibited",
			10: "host prohibited", 13: "communication prohibited"}[x.Code]
	} else if x.From.Is6() && x.Type == 1 {
		name = map[uint8]string{0: "no route", 1: "administratively prohibited", 3: "address unreachable", 4: "port unreachable", 5: "policy", 6: "reject route"}[x.Code]
	}
	if name == "" {
		name = fmt.Sprintf("type %d code %d", x.Type, x.Code)
	}
	return fmt.Sprintf("ICMP %s from %s", name, x.From)
}

// prohibits tells messages that only an administrator's rule or route sends.
func (x *ICMP) prohibits() bool {
	if x.From.Is6() {
		return x.Type == 1 && (x.Code == 1 || x.Code == 5 || x.Code == 6)
	}
	return x.Type == 3 && (x.Code == 9 || x.Code == 10 || x.Code == 13)
}

// portUnreachable: no kernel sends it for a TCP segment of its own accord; a
// closed port is answered with a reset.
func (x *ICMP) portUnreachable() bool {
	if x.From.Is6() {
		return x.Type == 1 && x.Code == 4
	}
	return x.Type == 3 && (x.Code == 3 || x.Code == 2)
}
