package listeners

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/listeners/sockdiag"
)

// Source is one network namespace as bytes: the kernel's own ([Live]) or a
// recording ([Tape]).
type Source interface {
	sockdiag.Source
	// NetFile gives a file below /proc/PID/net ("tcp6", "sctp/eps"). Of tcp and
	// tcp6 it is enough to give the lines up to the first that is no listener.
	NetFile(ctx context.Context, name string) ([]byte, error)
	// DeviceName gives the name of the interface with this index; an error that
	// is [unix.ENODEV] where there is none.
	DeviceName(index int) (string, error)
	// NetNS gives the inode of the network namespace, 0 where it cannot be told.
	NetNS() uint64
	// Kernel gives the release of the kernel ("6.1.0-18-amd64").
	Kernel() string
}

// maxNetFile bounds the reading of one file: sixty thousand UDP sockets are 8 MB.
const maxNetFile = 64 << 20

// Live reads from the running kernel: the network namespace of the thread that
// called [OpenLive]. It is not safe for concurrent use.
type Live struct {
	conn    *sockdiag.Conn
	connErr error // why sock_diag is not to be had
	proc    string
	netns   uint64
	control int // a socket for SIOCGIFNAME
	kernel  string
	reader  *bufio.Reader // see buffered
}

// OpenLive opens the calling thread's network namespace. proc is where procfs is
// mounted, "" means /proc. A kernel or sandbox without sock_diag is no error
// here: every Dump then says so, and [Read] falls back to /proc.
func OpenLive(proc string) (*Live, error) {
	if proc == "" {
		proc = "/proc"
	}
	l := &Live{proc: proc, control: -1}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(proc, "thread-self/ns/net"), &st); err == nil {
		l.netns = st.Ino
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, fmt.Errorf("read the kernel's release: %w", err)
	}
	l.kernel = unix.ByteSliceToString(uts.Release[:])
	l.conn, l.connErr = sockdiag.Open()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil { // a host without IPv4
		fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	if err == nil {
		l.control = fd
	}
	return l, nil
}

// Close closes the sockets.
func (l *Live) Close() error {
	var errs []error
	if l.conn != nil {
		errs = append(errs, l.conn.Close())
	}
	if l.control >= 0 {
		errs = append(errs, unix.Close(l.control))
		l.control = -1
	}
	return errors.Join(errs...)
}

// Dump implements [sockdiag.Source].
func (l *Live) Dump(ctx context.Context, q sockdiag.Query, receive func([]byte) error) error {
	if l.connErr != nil {
		return l.connErr
	}
	return l.conn.Dump(ctx, q, receive)
}

// NetFile implements [Source].
func (l *Live) NetFile(ctx context.Context, name string) ([]byte, error) {
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("read /proc/net/%s: not a file of that directory", name)
	}
	f, err := os.Open(filepath.Join(l.proc, "thread-self/net", name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readNetFile(ctx, l.buffered(f), name)
}

// maxNetLine bounds a line of a table below /proc/net.
const maxNetLine = 64 << 10

// buffered reads a file by the one buffer that this source keeps, so that files are
// read one after the other.
func (l *Live) buffered(f io.Reader) *bufio.Reader {
	if l.reader == nil {
		l.reader = bufio.NewReaderSize(f, maxNetLine)
	}
	l.reader.Reset(f)
	return l.reader
}

func readNetFile(ctx context.Context, r *bufio.Reader, name string) ([]byte, error) {
	listenersOnly := name == "tcp" || name == "tcp6"
	var out []byte
	for first := true; ; first = false {
		if err := ctx.Err(); err != nil {
			return out, fmt.Errorf("read %s: %w", name, err)
		}
		line, err := r.ReadSlice('\n')
		out = append(out, line...)
		switch {
		case err == io.EOF:
			return out, nil
		case errors.Is(err, bufio.ErrBufferFull):
			return out, fmt.Errorf("read %s: line longer than 64 KiB", name)
		case err != nil:
			return out, fmt.Errorf("read %s: %w", name, err)
		case len(out) > maxNetFile:
			return out, fmt.Errorf("read %s: longer than %d bytes", name, maxNetFile)
		}
		// The kernel lists listening sockets first (tcp_get_idx), so the million
		// connections behind them need not be read.
		if listenersOnly && !first && !bytes.Contains(line, []byte(" 0A ")) {
			return out, nil
		}
	}
}

// NetLines streams a text table below /proc/net without its heading, in
// constant memory; the line is only valid during the call.
func (l *Live) NetLines(ctx context.Context, name string, each func(line []byte) error) error {
	f, err := os.Open(filepath.Join(l.proc, "thread-self/net", name))
	if err != nil {
		return err
	}
	defer f.Close()
	r := l.buffered(f)
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return fmt.Errorf("read %s: %w", name, ctx.Err())
		}
		line, err := r.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if n == 0 && isHeading(line) {
			continue
		}
		if err := each(line); err != nil {
			return err
		}
	}
}

// DeviceName implements [Source] (SIOCGIFNAME, man 7 netdevice).
func (l *Live) DeviceName(index int) (string, error) {
	if l.control < 0 {
		return "", errors.New("look up interface name: no socket for it")
	}
	var req struct {
		name  [unix.IFNAMSIZ]byte
		index int32
		_     [20]byte
	}
	req.index = int32(index)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l.control), unix.SIOCGIFNAME, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return "", fmt.Errorf("look up name of interface %d: %w", index, errno)
	}
	name, _, _ := strings.Cut(string(req.name[:]), "\x00")
	return name, nil
}

// NetNS implements [Source].
func (l *Live) NetNS() uint64 { return l.netns }

// Kernel implements [Source].
func (l *Live) Kernel() string { return l.kernel }
