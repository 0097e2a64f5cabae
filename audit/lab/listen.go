package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Proto is a transport protocol.
type Proto int

// The protocols of listeners and probes.
const (
	TCP Proto = unix.IPPROTO_TCP
	UDP Proto = unix.IPPROTO_UDP
)

// String returns tcp or udp.
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("proto %d", int(p))
}

// Listen describes a listener. A TCP listener accepts every connection, a UDP
// one answers each datagram with its own bytes, from the address that it was
// sent to.
type Listen struct {
	Proto     Proto
	Addr      netip.AddrPort // port 0: the kernel chooses; see Listeners.Addrs
	Device    string         // SO_BINDTODEVICE
	V6Only    bool           // IPV6_V6ONLY; without it [::] takes IPv4 too
	ReusePort bool           // SO_REUSEPORT
	FreeBind  bool           // IP_FREEBIND: Addr need not be an address of the host
	// Transparent sets IP_TRANSPARENT: the socket takes what TPROXY hands to it,
	// whatever the destination was.
	Transparent bool
	Mark        int  // SO_MARK
	Backlog     int  // of listen(2); 0 means 4096
	Deaf        bool // never accepts and never answers: the queue fills
}

// Delivery is the proof that a probe reached a listener of this process.
type Delivery struct {
	Namespace string         // where the listener is
	Listen    Listen         // which listener it was
	Local     netip.AddrPort // the destination as the listener sees it, after DNAT
	Peer      netip.AddrPort // the source as the listener sees it, after SNAT
}

// recorder collects the deliveries of a lab by the token that a probe sends.
type recorder struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each delivery
	seen    map[token]Delivery
}

// token is what a probe sends: it survives every translation of addresses.
type token [16]byte

// tokenMagic begins a token, so that stray traffic is not taken for one.
var tokenMagic = [8]byte{'l', 'a', 'b', 'p', 'r', 'o', 'b', 'e'}

func newToken(serial uint64) (t token) {
	copy(t[:8], tokenMagic[:])
	binary.BigEndian.PutUint64(t[8:], serial)
	return t
}

func newRecorder() *recorder {
	return &recorder{changed: make(chan struct{}), seen: make(map[token]Delivery)}
}

func (r *recorder) record(data []byte, d Delivery) {
	if len(data) < len(token{}) || [8]byte(data[:8]) != tokenMagic {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[token(data[:16])] = d
	close(r.changed)
	r.changed = make(chan struct{})
}

// take returns and forgets what is known of a token, with a channel that is
// closed when more is known.
func (r *recorder) take(t token) (Delivery, bool, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, ok := r.seen[t]
	delete(r.seen, t)
	return d, ok, r.changed
}

// Listeners is a set of open listeners, served until Close or the end of the test.
type Listeners struct {
	namespace *Namespace
	sockets   map[int]Listen // by file descriptor
	accepted  map[int]Listen
	addrs     []netip.AddrPort
	epoll     int
	wake      int // eventfd: stop serving
	done      chan struct{}
	close     sync.Once
}

// Addrs returns the bound addresses in the order of the Listen values, with the
// ports that the kernel chose.
func (ls *Listeners) Addrs() []netip.AddrPort { return ls.addrs }

// Listen opens all the listeners inside the namespace and serves them; a
// listener that cannot be opened ends the test.
func (n *Namespace) Listen(t testing.TB, specs ...Listen) *Listeners {
	t.Helper()
	ls, err := n.listen(specs, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ls.Close)
	return ls
}

// TryListen is Listen where the kernel may refuse: what is opened is the caller's to
// close.
func (n *Namespace) TryListen(specs ...Listen) (*Listeners, error) { return n.listen(specs, 0) }

// listen opens sockets. For so long it waits for a port that is in use: where one was
// just closed, a process that another test is starting may have it until its exec.
func (n *Namespace) listen(specs []Listen, patience time.Duration) (*Listeners, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	ls := &Listeners{
		namespace: n, sockets: make(map[int]Listen, len(specs)), accepted: make(map[int]Listen),
		epoll: epoll, wake: wake, done: make(chan struct{}),
	}
	if err := ls.watch(wake); err != nil {
		ls.closeAll()
		return nil, err
	}
	n.Do(func() {
		for _, spec := range specs {
			var fd int
			var addr netip.AddrPort
			fd, addr, err = spec.open()
			for begin := time.Now(); errors.Is(err, unix.EADDRINUSE) && time.Since(begin) < patience; fd, addr, err = spec.open() {
				time.Sleep(10 * time.Millisecond)
			}
			if err != nil {
				err = fmt.Errorf("listen on %v %v in %s: %w", spec.Proto, spec.Addr, n.Name, err)
				return
			}
			ls.sockets[fd] = spec
			ls.addrs = append(ls.addrs, addr)
			if !spec.Deaf {
				if err = ls.watch(fd); err != nil {
					return
				}
			}
		}
	})
	if err != nil {
		ls.closeAll()
		return nil, err
	}
	go ls.serve()
	return ls, nil
}

// Drain takes the connections that wait at deaf listeners and resets them.
func (ls *Listeners) Drain() {
	for fd, spec := range ls.sockets {
		for spec.Deaf && spec.Proto == TCP {
			c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				break // none left: the sockets do not block
			}
			_ = unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			unix.Close(c)
		}
	}
}

// open makes the socket in the namespace of the calling thread.
func (s Listen) open() (fd int, bound netip.AddrPort, err error) {
	kind := unix.SOCK_STREAM
	if s.Proto == UDP {
		kind = unix.SOCK_DGRAM
	}
	fam := family(s.Addr.Addr())
	fd, err = unix.Socket(fam, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(s.Proto))
	if err != nil {
		return -1, bound, fmt.Errorf("socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	options := []option{}
	if s.Proto == TCP {
		options = append(options, option{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1})
	}
	if s.ReusePort {
		options = append(options, option{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1})
	}
	if s.FreeBind {
		options = append(options, option{"IP_FREEBIND", unix.SOL_IP, unix.IP_FREEBIND, 1})
	}
	if s.Mark != 0 {
		options = append(options, option{"SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, s.Mark})
	}
	if s.Transparent {
		options = append(options, option{"IP_TRANSPARENT", unix.SOL_IP, unix.IP_TRANSPARENT, 1})
		if fam == unix.AF_INET6 {
			options = append(options, option{"IPV6_TRANSPARENT", unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1})
		}
	}
	if fam == unix.AF_INET6 {
		v6only := 0
		if s.V6Only {
			v6only = 1
		}
		options = append(options, option{"IPV6_V6ONLY", unix.SOL_IPV6, unix.IPV6_V6ONLY, v6only})
	}
	if s.Proto == UDP {
		if fam == unix.AF_INET {
			options = append(options, option{"IP_PKTINFO", unix.SOL_IP, unix.IP_PKTINFO, 1})
		} else {
			options = append(options, option{"IPV6_RECVPKTINFO", unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1})
		}
	}
	if err := setAll(fd, options); err != nil {
		return fd, bound, err
	}
	if s.Device != "" {
		if err := unix.BindToDevice(fd, s.Device); err != nil {
			return fd, bound, fmt.Errorf("SO_BINDTODEVICE: %w", err)
		}
	}
	if err := unix.Bind(fd, sockaddr(s.Addr)); err != nil {
		return fd, bound, fmt.Errorf("bind: %w", err)
	}
	if s.Proto == TCP {
		backlog := s.Backlog
		if backlog == 0 {
			backlog = 4096
		}
		if err := unix.Listen(fd, backlog); err != nil {
			return fd, bound, fmt.Errorf("listen: %w", err)
		}
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return fd, bound, fmt.Errorf("getsockname: %w", err)
	}
	return fd, addrPort(name), nil
}

// option is one integer socket option.
type option struct {
	name         string
	level, which int
	value        int
}

func setAll(fd int, options []option) error {
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.which, o.value); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	return nil
}

// watch adds a descriptor to the epoll.
func (ls *Listeners) watch(fd int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(fd)}
	if err := unix.EpollCtl(ls.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("watch a socket: %w", err)
	}
	return nil
}

// serve accepts and answers until Close.
func (ls *Listeners) serve() {
	defer close(ls.done)
	defer ls.closeAll()
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(ls.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(fmt.Sprintf("lab: wait for listeners in %s: %v", ls.namespace.Name, err))
		}
		for _, event := range events[:max(n, 0)] {
			fd := int(event.Fd)
			if fd == ls.wake {
				return
			}
			if spec, ok := ls.accepted[fd]; ok {
				ls.read(fd, spec)
				continue
			}
			spec, ok := ls.sockets[fd]
			switch {
			case ok && spec.Proto == TCP:
				ls.accept(fd, spec)
			case ok:
				ls.answer(fd, spec)
			}
		}
	}
}

// accept takes every waiting connection. They stay open until the client ends
// them, so that a probe never meets a reset in place of its connection.
func (ls *Listeners) accept(fd int, spec Listen) {
	for {
		conn, _, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return // EAGAIN, or a connection that ended before it was taken
		}
		_ = unix.SetsockoptLinger(conn, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		if err := ls.watch(conn); err != nil {
			unix.Close(conn)
			continue
		}
		ls.accepted[conn] = spec
	}
}

// read takes a probe's token from a connection, or its end.
func (ls *Listeners) read(fd int, spec Listen) {
	buffer := make([]byte, 64)
	n, err := unix.Read(fd, buffer)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return
	}
	if n <= 0 || err != nil {
		delete(ls.accepted, fd)
		unix.Close(fd)
		return
	}
	local, err1 := unix.Getsockname(fd)
	peer, err2 := unix.Getpeername(fd)
	if err1 == nil && err2 == nil {
		ls.namespace.recorder.record(buffer[:n], Delivery{ls.namespace.Name, spec, addrPort(local), addrPort(peer)})
	}
}

// answer returns every waiting datagram from the address it was sent to.
func (ls *Listeners) answer(fd int, spec Listen) {
	buffer, control := make([]byte, 2048), make([]byte, 256)
	for {
		n, controlLen, _, from, err := unix.Recvmsg(fd, buffer, control, 0)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			continue // an ICMP error about an earlier answer
		}
		local, reply := destination(control[:controlLen])
		if !local.IsValid() {
			continue
		}
		port := uint16(0)
		if name, err := unix.Getsockname(fd); err == nil {
			port = addrPort(name).Port()
		}
		ls.namespace.recorder.record(buffer[:n], Delivery{ls.namespace.Name, spec, netip.AddrPortFrom(local, port), addrPort(from)})
		// Whether the answer can leave is the client's to find out.
		_, _ = unix.SendmsgN(fd, buffer[:n], reply, from, 0)
	}
}

// destination returns the address that a datagram was sent to and the control
// message that makes it the source of the answer.
func destination(control []byte) (netip.Addr, []byte) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.Addr{}, nil
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			// in_pktinfo: ifindex, spec_dst, addr (ip(7)).
			addr := netip.AddrFrom4([4]byte(m.Data[8:12]))
			return addr, unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: addr.As4()})
		case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			addr := netip.AddrFrom16([16]byte(m.Data[:16]))
			return addr.Unmap(), unix.PktInfo6(&unix.Inet6Pktinfo{Addr: addr.As16()})
		}
	}
	return netip.Addr{}, nil
}

// Close ends every listener and connection of the set.
func (ls *Listeners) Close() {
	ls.close.Do(func() {
		_, _ = unix.Write(ls.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		<-ls.done
	})
}

// closeAll closes every descriptor.
func (ls *Listeners) closeAll() {
	for fd := range ls.sockets {
		unix.Close(fd)
	}
	for fd := range ls.accepted {
		unix.Close(fd)
	}
	unix.Close(ls.wake)
	unix.Close(ls.epoll)
}

// sockaddr returns the kernel's form of an address.
func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// addrPort is the inverse of sockaddr, with IPv4-mapped addresses as IPv4.
func addrPort(s unix.Sockaddr) netip.AddrPort {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr).Unmap(), uint16(s.Port))
	}
	return netip.AddrPort{}
}
