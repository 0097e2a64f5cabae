package diagnose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// KernelLog is what the kernel's own log says that tells of connections and of
// services that ended.
type KernelLog struct {
	// Events stand in the order of the log.
	Events []KernelEvent
	// Since is the time of the oldest line: of what was before it nothing is known.
	Since time.Time
}

// KernelEvent is one such line.
type KernelEvent struct {
	Kind KernelKind
	// At is the time on the clock that began with the boot (CLOCK_MONOTONIC), which
	// is systemd's, too; Time is the same by the calendar. On a host that slept
	// since then Time is too late by as long as it slept.
	At   time.Duration
	Time time.Time
	Text string // the line, host text

	// PID and Comm are the process that was killed or that crashed, as the first
	// pid namespace numbers it; Comm is host text of at most 15 bytes.
	PID  int
	Comm string
	// Group is the control group of the process that was killed for memory, Limited
	// the one whose limit was met, "" where the whole host had no memory left. Both
	// are "" for not told.
	Group, Limited string
	// Port is the local port of a SYN flood; Dropped: the connection attempts were
	// dropped and not answered with cookies.
	Port    uint16
	Dropped bool
	// Namespace is the inode of the network namespace whose connection table is
	// full, 0 for the first one (or a kernel before 6.18, which does not say).
	Namespace uint64
}

// KernelKind tells events apart.
type KernelKind string

// The kinds of events, with the function of the kernel that says so.
const (
	KernelOOM       KernelKind = "killed for memory"     // __oom_kill_process of mm/oom_kill.c
	KernelFault     KernelKind = "crashed"               // show_signal_msg of arch/x86/mm/fault.c, do_trap
	KernelConntrack KernelKind = "connection table full" // __nf_conntrack_alloc
	KernelSynFlood  KernelKind = "SYN queue full"        // tcp_syn_flood_action
	KernelTCPMemory KernelKind = "TCP memory exhausted"  // tcp_check_oom
	KernelNeighbour KernelKind = "neighbour table full"  // neigh_alloc
)

// Bounds of a reading: the log of a kernel with log_buf_len at its default holds
// some thousand lines.
const (
	maxKernelLines = 200_000
	kernelLogLimit = 5 * time.Second
	maxKernelKept  = 500 // of each kind, the last
)

// readKernelLog reads /dev/kmsg (Documentation/ABI/testing/dev-kmsg) without
// waiting for more. It needs root, or kernel.dmesg_restrict=0 and the right to
// open the file.
func readKernelLog(ctx context.Context) (*KernelLog, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/dev/kmsg", Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("stat /dev/kmsg: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 11) {
		return nil, errors.New("/dev/kmsg is not the kernel's log (a container)")
	}
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &boot); err != nil {
		return nil, fmt.Errorf("read the clock since boot: %w", err)
	}
	now := time.Now().UTC()
	p := kernelParser{began: now.Add(-time.Duration(boot.Nano()))}
	end := now.Add(kernelLogLimit)
	record := make([]byte, 8192) // a record is never longer: PRINTK_MESSAGE_MAX is 2048
	for range maxKernelLines {
		n, err := unix.Read(fd, record)
		switch {
		case errors.Is(err, unix.EAGAIN), err == nil && n == 0:
			return p.done(), nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EPIPE): // EPIPE: overwritten meanwhile
		case err != nil:
			return p.done(), &fs.PathError{Op: "read", Path: "/dev/kmsg", Err: err}
		default:
			p.record(record[:n])
		}
		if err := ctx.Err(); err != nil {
			return p.done(), err
		}
		if time.Now().After(end) {
			return p.done(), fmt.Errorf("read /dev/kmsg: not at its end after %s", kernelLogLimit)
		}
	}
	return p.done(), fmt.Errorf("read /dev/kmsg: more than %d lines", maxKernelLines)
}

// kernelParser turns records into events.
type kernelParser struct {
	began time.Time // of the boot
	log   KernelLog
	any   bool
	// hunt is the last "oom-kill:" line, which names the groups of the process that
	// the line after it kills; group is that of a whole group that is killed.
	hunt  oomHunt
	group string
}

// record takes one record: "LEVEL,SEQUENCE,MICROSECONDS,FLAGS[,…];TEXT", and
// lines that begin with a space, which say about which device it is.
func (p *kernelParser) record(b []byte) {
	head, text, ok := bytes.Cut(b, []byte{';'})
	if !ok {
		return
	}
	f := bytes.SplitN(head, []byte{','}, 4)
	if len(f) < 4 {
		return
	}
	level, err1 := strconv.ParseUint(string(f[0]), 10, 32)
	micro, err2 := strconv.ParseUint(string(f[2]), 10, 63)
	if err1 != nil || err2 != nil || micro > uint64(1<<63-1)/1000 {
		return
	}
	at := time.Duration(micro) * time.Microsecond
	if !p.any {
		p.log.Since, p.any = p.began.Add(at), true
	}
	// What programs write into the log has another facility than the kernel's, 0
	// (devkmsg_write lets nobody claim that one).
	if level>>3 != 0 {
		return
	}
	text, _, _ = bytes.Cut(text, []byte{'\n'})
	line := unescapeKernel(text)
	e, ok := p.line(line)
	if !ok {
		return
	}
	e.At, e.Time = at, p.began.Add(at)
	if e.Text = line; len(line) > 300 {
		e.Text = line[:300]
	}
	p.log.Events = append(p.log.Events, e)
}

// done drops what is too much.
func (p *kernelParser) done() *KernelLog {
	count := map[KernelKind]int{}
	for i := len(p.log.Events) - 1; i >= 0; i-- {
		e := &p.log.Events[i]
		if count[e.Kind]++; count[e.Kind] > maxKernelKept {
			e.Kind = ""
		}
	}
	p.log.Events = slices.DeleteFunc(p.log.Events, func(e KernelEvent) bool { return e.Kind == "" })
	return &p.log
}

// unescapeKernel undoes the \xNN of msg_print_ext_body of kernel/printk/printk.c.
func unescapeKernel(b []byte) string {
	if !bytes.Contains(b, []byte(`\x`)) {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) && b[i+1] == 'x' {
			if n, err := strconv.ParseUint(string(b[i+2:i+4]), 16, 8); err == nil {
				out = append(out, byte(n))
				i += 3
				continue
			}
		}
		out = append(out, b[i])
	}
	return string(out)
}
