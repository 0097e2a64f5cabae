package checks_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// TestReceiveBuffer: datagrams meet a program that does not read. What bounds its
// buffer is net.core.rmem_max, its own wish, or nothing that it asked for, and only
// in the first case the setting is to be raised. The setting is the machine's: it
// is read here and never written.
func TestReceiveBuffer(t *testing.T) {
	const check, to = "sysctl.net.core.rmem_max", "10.9.0.2:514"
	serve := func(t *testing.T, ask int, read bool) *host {
		h := newHost(t, lab.Topology{})
		var fd int
		h.Server.Do(func() {
			var err error
			if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
				t.Error(err)
				return
			}
			if ask > 0 {
				err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, ask)
			}
			if err == nil {
				err = unix.Bind(fd, &unix.SockaddrInet4{Port: 514})
			}
			if err != nil {
				t.Error(err)
			}
		})
		done := make(chan struct{})
		t.Cleanup(func() { _ = unix.Shutdown(fd, unix.SHUT_RDWR); unix.Close(fd); <-done })
		go func() {
			defer close(done)
			b := make([]byte, 2048)
			_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
			for read {
				if _, err := unix.Read(fd, b); err != nil && err != unix.EAGAIN && err != unix.EINTR {
					return
				}
			}
		}()
		return h
	}
	// send is a burst of n datagrams of 1,000 bytes.
	send := func(h *host, n int) func() {
		return func() {
			h.Client.Do(func() {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer unix.Close(fd)
				a := addrPort(to)
				b := make([]byte, 1000)
				for range n {
					if err := unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}); err != nil && err != unix.ENOBUFS {
						t.Error(err)
						return
					}
				}
			})
			time.Sleep(100 * time.Millisecond)
		}
	}
	// More than the largest buffer that net.core.rmem_max gives on any kernel so far.
	const flood = 12_000
	h := serve(t, 1<<30, false)
	f := want(t, h.scan(send(h, flood)), audit.Warning, "sysctl.udp-receive-buffer", "udp 0.0.0.0:514")
	evidence(t, f, "Udp RcvbufErrors", "+")
	evidence(t, f, "dropped at udp 0.0.0.0:514", "+")
	if !recommends(f, "net.core.rmem_max") || f.Fix != audit.FixAutomatic {
		t.Errorf("bounded by the setting: %s, %q", f.Fix, f.Remedy)
	}
	for _, ask := range []int{0, 10_000} {
		h = serve(t, ask, false)
		f = want(t, h.scan(send(h, flood)), audit.Warning, "sysctl.udp-receive-buffer", "udp 0.0.0.0:514")
		if recommends(f, "net.core.rmem_max") || f.Fix == audit.FixAutomatic {
			t.Errorf("asked for %d bytes: %s, %q", ask, f.Fix, f.Remedy)
		}
	}
	silent(t, h.scan(nil), check) // counted since the socket was made, and nothing now

	h = serve(t, 0, true)
	silent(t, h.scan(send(h, 50)), check)
}
