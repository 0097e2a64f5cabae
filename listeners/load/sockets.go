package main

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// Addresses: listeners on 127.0.1.x or one address below port 1024, TIME_WAIT from 127.2.x.y to 127.0.0.1:7,
// established from 127.3.x.y to 127.9.0.z. The whole of 127.0.0.0/8 is local.

const firstPort, ports = 1024, 64000

func stream() (int, error) { return unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) }

func makeListeners(s size) ([]int, error) {
	var one [4]byte
	if s.Address != "" {
		a, err := netip.ParseAddr(s.Address)
		switch {
		case err != nil:
			return nil, fmt.Errorf("address of the listeners: %w", err)
		case !a.Is4():
			return nil, fmt.Errorf("address of the listeners: %s is none of IPv4", a)
		case s.Listen > firstPort-serverPort-1:
			return nil, fmt.Errorf("at most %d listeners on one address", firstPort-serverPort-1)
		}
		one = a.As4()
	}
	fds := make([]int, 0, s.Listen)
	for i := range s.Listen {
		fd, err := stream()
		if err != nil {
			return nil, fmt.Errorf("listener %d: %w", i, err)
		}
		addr := unix.SockaddrInet4{Addr: [4]byte{127, 0, 1, byte(1 + i%200)}, Port: 10000 + i/200}
		if s.Address != "" {
			addr = unix.SockaddrInet4{Addr: one, Port: serverPort + 1 + i}
		}
		if err := unix.Bind(fd, &addr); err != nil {
			return nil, fmt.Errorf("listener %d: bind: %w", i, err)
		}
		if err := unix.Listen(fd, 128); err != nil {
			return nil, fmt.Errorf("listener %d: %w", i, err)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// perHolder is how many connections one process holds: more would not fit under
// a limit of open files of 20,000, which not every sandbox lets root raise.
const perHolder = 15000

// holdMark tells this program to hold connections FROM-TO and nothing else.
const holdMark = "LOAD_HOLD"

// makeEstablished starts processes that hold the connections.
func makeEstablished(n int) error {
	for from := 0; from < n; from += perHolder {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d-%d", holdMark, from, min(from+perHolder, n)))
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
			return fmt.Errorf("process for connections from %d on: %w", from, err)
		}
	}
	return nil
}

// hold makes its part of the connections, says so, and sleeps.
func hold(part string) error {
	var from, to int
	if _, err := fmt.Sscanf(part, "%d-%d", &from, &to); err != nil {
		return err
	}
	if err := raiseFileLimit(to - from + 64); err != nil {
		return err
	}
	for i := from; i < to; i++ {
		if err := establish(i); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
	}
	if _, err := os.Stdout.WriteString("."); err != nil {
		return err
	}
	for { // until the parent dies (PR_SET_PDEATHSIG)
		unix.Pause()
	}
}

// establish makes a connection without a peer: with TCP_REPAIR connect(2) sends
// nothing and the socket is established at once.
func establish(i int) error {
	fd, err := stream()
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
		return fmt.Errorf("TCP_REPAIR: %w", err)
	}
	// Ten destinations for each source, most of it to the first.
	from := unix.SockaddrInet4{Addr: [4]byte{127, 3, 0, byte(1 + i/ports)}, Port: firstPort + i%ports}
	to := unix.SockaddrInet4{Addr: [4]byte{127, 9, 0, 1}, Port: 3306}
	if i%10 == 9 {
		to.Addr[3] = byte(2 + i/10%9)
	}
	if err := unix.Bind(fd, &from); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return unix.Connect(fd, &to)
}

// raiseFileLimit makes room for n descriptors.
func raiseFileLimit(n int) error {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return err
	}
	need := uint64(n)
	if lim.Cur >= need {
		return nil
	}
	lim.Cur, lim.Max = need, max(lim.Max, need)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("raise the limit of open files to %d: %w", n, err)
	}
	return nil
}
