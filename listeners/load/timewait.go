package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// waiting are connections in TIME_WAIT.
type waiting struct {
	n     int
	parts []*timeWait
}

// makeTimeWait makes real connections over loopback whose client closes first,
// and winds up their timers again before it returns, so that all of them have
// their minute before them.
func makeTimeWait(n int) (*waiting, error) {
	const workers = 2
	w := &waiting{n: n}
	for i := range workers {
		w.parts = append(w.parts, &timeWait{server: [4]byte{127, 0, 0, byte(1 + i)}, first: i, step: workers})
	}
	return w, w.each(func(t *timeWait) error { return t.make(n) })
}

// each runs f for all parts at once.
func (w *waiting) each(f func(*timeWait) error) error {
	errs := make([]error, len(w.parts))
	var wg sync.WaitGroup
	for i, t := range w.parts {
		wg.Go(func() { errs[i] = f(t) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// refresh winds the timers up, and makes those connections again whose minute was
// over: on a busy machine a measurement can take longer.
func (w *waiting) refresh() error {
	if err := w.each(func(t *timeWait) error { return t.rewind(w.n) }); err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/thread-self/net/sockstat")
	if err != nil {
		return err
	}
	var left int
	if _, after, ok := strings.Cut(string(b), " tw "); !ok {
		return errors.New("/proc/net/sockstat does not count TIME_WAIT")
	} else if _, err := fmt.Sscan(after, &left); err != nil {
		return fmt.Errorf("read /proc/net/sockstat: %w", err)
	}
	if left >= w.n {
		return nil
	}
	return w.each(func(t *timeWait) error { return t.make(w.n) })
}

// serve winds the timers up again for every byte that it reads, and answers with
// one; it closes the connection where that fails.
func (w *waiting) serve(requests io.ReadWriteCloser) {
	defer requests.Close()
	one := make([]byte, 1)
	for {
		if _, err := io.ReadFull(requests, one); err != nil {
			return
		}
		if err := w.refresh(); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			return
		}
		if _, err := requests.Write(one); err != nil {
			return
		}
	}
}

// timeWait is one worker's part: connections first, first+step and so on.
type timeWait struct {
	server      [4]byte
	first, step int
}

const (
	serverPort = 7
	rewindAt   = 25 * time.Second
)

// client is the address of connection i.
func client(i int) unix.SockaddrInet4 {
	return unix.SockaddrInet4{Addr: [4]byte{127, 2, byte(i / ports / 250), byte(1 + i/ports%250)}, Port: firstPort + i%ports}
}

func (t *timeWait) make(n int) error {
	server, err := stream()
	if err != nil {
		return err
	}
	defer unix.Close(server)
	to := unix.SockaddrInet4{Addr: t.server, Port: serverPort}
	if err := unix.Bind(server, &to); err != nil {
		return fmt.Errorf("server of TIME_WAIT: %w", err)
	}
	if err := unix.Listen(server, 128); err != nil {
		return fmt.Errorf("server of TIME_WAIT: %w", err)
	}
	wound := time.Now()
	for i := t.first; i < n; i += t.step {
		if err := t.one(server, &to, i); err != nil {
			return fmt.Errorf("TIME_WAIT %d: %w", i, err)
		}
		if i%1024 < t.step && time.Since(wound) > rewindAt {
			if err := t.rewind(i + 1); err != nil {
				return err
			}
			wound = time.Now()
		}
	}
	return t.rewind(n)
}

// rawSocket opens a socket that only sends: what it would receive is dropped at
// once.
func rawSocket(server [4]byte) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("raw socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0); err != nil {
		return -1, fmt.Errorf("raw socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: server}); err != nil {
		return -1, fmt.Errorf("raw socket: %w", err)
	}
	return fd, nil
}

func (t *timeWait) one(server int, to *unix.SockaddrInet4, i int) error {
	c, err := stream()
	if err != nil {
		return err
	}
	defer unix.Close(c)
	from := client(i)
	switch err := unix.Bind(c, &from); {
	case errors.Is(err, unix.EADDRINUSE):
		return nil // it is there already
	case err != nil:
		return fmt.Errorf("bind: %w", err)
	}
	if err := unix.Connect(c, to); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	a, _, err := unix.Accept4(server, unix.SOCK_CLOEXEC)
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	// The client shuts down first, so TIME_WAIT is on its side.
	if err := unix.Shutdown(c, unix.SHUT_WR); err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	return unix.Close(a)
}

// rewind sends a bare ACK to each connection up to n: in TIME_WAIT that starts
// the minute again (tcp_timewait_state_process). The reset that the server
// answers with would end it, were it not for tcp_rfc1337.
func (t *timeWait) rewind(n int) error {
	raw, err := rawSocket(t.server)
	if err != nil {
		return err
	}
	defer unix.Close(raw)
	// Packets over lo wait in a queue of the processor that sends them, which
	// loses those beyond net.core.netdev_max_backlog where the machine is busy: so
	// stay on one processor, and wait for the queue now and then.
	release, err := stayPut(t.first)
	if err != nil {
		return err
	}
	defer release()
	echo, err := newEcho(t.server)
	if err != nil {
		return err
	}
	defer unix.Close(echo)
	segment := make([]byte, 20)
	binary.BigEndian.PutUint16(segment[0:], serverPort)
	binary.BigEndian.PutUint32(segment[4:], 1)
	binary.BigEndian.PutUint32(segment[8:], 1)
	segment[12], segment[13] = 5<<4, 0x10 // five words, ACK
	sent := 0
	for i := t.first; i < n; i += t.step {
		to := client(i)
		binary.BigEndian.PutUint16(segment[2:], uint16(to.Port))
		binary.BigEndian.PutUint16(segment[16:], 0)
		binary.BigEndian.PutUint16(segment[16:], checksum(t.server, to.Addr, segment))
		to.Port = 0
		if err := unix.Sendto(raw, segment, 0, &to); err != nil {
			return fmt.Errorf("wind up TIME_WAIT %d: %w", i, err)
		}
		if sent++; sent%sendAhead == 0 {
			if err := drained(echo); err != nil {
				return fmt.Errorf("wind up TIME_WAIT %d: %w", i, err)
			}
		}
	}
	return drained(echo)
}

// sendAhead is how many packets are sent before the queue is waited for; each is
// answered with one more.
const sendAhead = 256

// stayPut binds the goroutine to its thread, and the thread to one processor,
// another for each worker where there are enough.
func stayPut(worker int) (release func(), err error) {
	runtime.LockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("read the processors to run on: %w", err)
	}
	nth := worker % max(all.Count(), 1)
	for cpu := 0; one.Count() == 0 && cpu < 8*int(unsafe.Sizeof(all)); cpu++ {
		if all.IsSet(cpu) {
			if nth == 0 {
				one.Set(cpu)
			}
			nth--
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("stay on one processor: %w", err)
	}
	return func() {
		// Where that fails the thread merely stays where it is.
		_ = unix.SchedSetaffinity(0, &all)
		runtime.UnlockOSThread()
	}, nil
}

// newEcho opens a datagram socket connected to itself.
func newEcho(address [4]byte) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket to wait for the queue: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Addr: address})
	if err == nil {
		var own unix.Sockaddr
		if own, err = unix.Getsockname(fd); err == nil {
			err = unix.Connect(fd, own)
		}
	}
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("socket to wait for the queue: %w", err)
	}
	return fd, nil
}

// drained waits until everything sent before has arrived: a datagram comes last.
// One that the full queue loses is sent again.
func drained(echo int) error {
	var b [1]byte
	for range 10 {
		if _, err := unix.Write(echo, b[:]); err != nil {
			return fmt.Errorf("wait for the queue: %w", err)
		}
		for {
			_, err := unix.Read(echo, b[:])
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err == nil {
				return nil
			}
			break
		}
	}
	return errors.New("wait for the queue: nothing comes through")
}

// checksum is TCP's, over the pseudo header and the segment (RFC 9293, 3.1).
func checksum(from, to [4]byte, segment []byte) uint16 {
	sum := uint32(unix.IPPROTO_TCP) + uint32(len(segment))
	add := func(b []byte) {
		for i := 0; i+1 < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	add(from[:])
	add(to[:])
	add(segment)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
