package listeners

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is one owner of a socket. Names and command lines are what the
// process says of itself: claims, not facts.
type Process struct {
	PID int `json:"pid"`
	// Start is when it started, in clock ticks (1/100 s) after boot: with the pid
	// it names the process for good.
	Start uint64   `json:"start"`
	Comm  HostText `json:"comm"`
	// Exe is the path of the executable in the process's own mount namespace,
	// empty where it may not be read.
	Exe HostText `json:"exe,omitempty"`
	// ExeDeleted: the file has been replaced or removed since (an update without
	// a restart).
	ExeDeleted bool `json:"exe_deleted,omitempty"`
	// Command is the command line, arguments apart by NUL as the kernel keeps
	// them, at most 4 KiB.
	Command          HostText   `json:"command,omitempty"`
	CommandTruncated bool       `json:"command_truncated,omitempty"`
	UID              uint32     `json:"uid"` // effective
	User             HostText   `json:"user,omitempty"`
	Cgroup           HostText   `json:"cgroup,omitempty"` // path in the unified or the systemd hierarchy
	Unit             HostText   `json:"unit,omitempty"`   // systemd unit
	Container        *Container `json:"container,omitempty"`
	Files            FileLimit  `json:"files"`
	// UnitFiles is LimitNOFILE= of the unit, nil where it has none.
	UnitFiles *UnitFiles `json:"unit_files,omitempty"`
	// SelectOn is the number of descriptors that the process waits for in
	// select(2); 0 where it does not, or holds few, or that is not known.
	SelectOn int `json:"select_on,omitempty"`
	// Untold says what could not be read of the process, and why.
	Untold []Gap `json:"untold,omitempty"`
}

// FileLimit compares a process's open descriptors with its own RLIMIT_NOFILE.
// Open is -1 where the descriptors may not be listed; a limit of -1 means
// unlimited and 0 that it could not be read.
type FileLimit struct {
	Open int   `json:"open"`
	Soft int64 `json:"soft"`
	Hard int64 `json:"hard"`
}

// Fill is the share of the soft limit in use; known is false where either side is not.
func (f FileLimit) Fill() (share float64, known bool) {
	if f.Open < 0 || f.Soft == 0 {
		return 0, false
	}
	if f.Soft < 0 {
		return 0, true
	}
	return float64(f.Open) / float64(f.Soft), true
}

const (
	maxCommand  = 4096
	maxProcFile = 64 << 10
	unlimited   = -1
)

// errVanished: the process is gone, or its pid belongs to another one now.
var errVanished = errors.New("the process is gone")

// procReader reads small files of procfs into one buffer, which is only good
// until the next reading.
type procReader struct{ buf []byte }

// describe fills in everything of the process behind dir, an open directory
// /proc/PID. Such a directory stays with its process: once that is gone every
// look-up in it fails (pid_revalidate and proc_pident_lookup in fs/proc/base.c),
// even if the pid is in use again, so that a last look-up speaks for all that was
// read before, by the number as well.
func (r *procReader) describe(dir, pid int) (Process, error) {
	p := Process{PID: pid, Files: FileLimit{Open: -1}}
	comm, start, err := r.stat(dir)
	if err != nil {
		return p, err
	}
	p.Comm, p.Start = comm, start

	p.untold("executable", p.readExe(r, dir))
	if strings.TrimSpace(string(p.Comm)) == "" { // it may clear its name, not that of its executable
		p.Comm = HostText(path.Base("/" + string(p.Exe)))
	}
	p.untold("command line", p.readCommand(r, dir))
	p.untold("user", p.readUser(dir))
	p.untold("cgroup", p.readCgroup(r, dir))
	p.untold("limits", p.readLimits(r, dir))
	p.untold("open files", p.countFiles(dir, r))
	p.readSelect(r, dir)
	var st unix.Stat_t
	if err := unix.Fstatat(dir, "stat", &st, 0); err != nil {
		return p, vanished(err)
	}
	return p, nil
}

func (p *Process) untold(what string, err error) {
	if err != nil {
		p.Untold = append(p.Untold, Gap{What: what, Why: err.Error()})
	}
}

// stat reads comm and start time from DIR/stat (man 5 proc_pid_stat). The
// comm is free text in parentheses, parentheses included: the last one counts.
func (r *procReader) stat(dir int) (HostText, uint64, error) {
	b, err := r.read(dir, "stat", maxProcFile, single)
	if err != nil {
		return "", 0, err
	}
	return parseStat(b)
}

func parseStat(b []byte) (HostText, uint64, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return "", 0, errors.New("parse stat: no name in parentheses")
	}
	f := bytes.Fields(b[end+1:])
	if len(f) < 20 {
		return "", 0, fmt.Errorf("parse stat: %d fields after the name", len(f))
	}
	start, err := strconv.ParseUint(string(f[19]), 10, 64)
	if err != nil {
		return "", 0, fmt.Errorf("parse stat: start time: %w", err)
	}
	return HostText(b[open+1 : end]), start, nil
}

func (p *Process) readExe(r *procReader, dir int) error {
	link, err := r.link(dir, "exe")
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil // a kernel thread has none
		}
		return err
	}
	path := string(link)
	if rest, deleted := strings.CutSuffix(path, " (deleted)"); deleted {
		path, p.ExeDeleted = rest, true
	}
	p.Exe = HostText(path)
	return nil
}

func (p *Process) readCommand(r *procReader, dir int) error {
	b, err := r.read(dir, "cmdline", maxCommand+1, single)
	if err != nil && !errors.Is(err, errTooLong) {
		return err
	}
	if len(b) > maxCommand {
		b, p.CommandTruncated = b[:maxCommand], true
	}
	p.Command = HostText(bytes.TrimRight(b, "\x00"))
	return nil
}

// readUser takes the effective user from the owner of the directory, which
// task_dump_owner (fs/proc/base.c) promises for it even where the process is not
// dumpable; its status would have to be made into text first.
func (p *Process) readUser(dir int) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return vanished(err)
	}
	p.UID = st.Uid
	return nil
}

func (p *Process) readLimits(r *procReader, dir int) error {
	// prlimit(2) is cheaper, but reads another user's limits only with
	// CAP_SYS_RESOURCE. A pid that changed hands shows in the start time.
	var lim unix.Rlimit
	if unix.Prlimit(p.PID, unix.RLIMIT_NOFILE, nil, &lim) == nil {
		p.Files.Soft, p.Files.Hard = limitOf(lim.Cur), limitOf(lim.Max)
		return nil
	}
	b, err := r.read(dir, "limits", maxProcFile, single)
	if err != nil {
		return err
	}
	p.Files.Soft, p.Files.Hard, err = parseLimits(b)
	return err
}

// parseLimits finds "Max open files  SOFT  HARD  files".
func parseLimits(b []byte) (soft, hard int64, err error) {
	for line := range bytes.Lines(b) {
		rest, ok := bytes.CutPrefix(line, []byte("Max open files"))
		if !ok {
			continue
		}
		f := bytes.Fields(rest)
		if len(f) < 2 {
			break
		}
		soft, err1 := parseLimit(f[0])
		hard, err2 := parseLimit(f[1])
		return soft, hard, errors.Join(err1, err2)
	}
	return 0, 0, errors.New("parse limits: no line for open files")
}

func limitOf(n uint64) int64 {
	if n > math.MaxInt64 { // RLIM_INFINITY
		return unlimited
	}
	return int64(n)
}

func parseLimit(b []byte) (int64, error) {
	if string(b) == "unlimited" {
		return unlimited, nil
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse limits: %w", err)
	}
	return n, nil
}

// countFiles counts the descriptors. Since Linux 6.2 the size of the directory
// is their number; before it is 0 and they are counted.
func (p *Process) countFiles(dir int, r *procReader) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, "fd", &st, 0); err != nil {
		return err
	}
	if st.Size > 0 {
		p.Files.Open = int(st.Size)
		return nil
	}
	fd, err := openAt(dir, "fd", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	n := 0
	for {
		got, err := unix.Getdents(fd, r.buffer())
		if err != nil {
			return err
		}
		if got <= 0 {
			p.Files.Open = n
			return nil
		}
		for range numericEntries(r.buf[:got]) {
			n++
		}
	}
}

// namespace reads a link like "net:[4026531840]".
func (r *procReader) namespace(dir int, name string) (uint64, error) {
	link, err := r.link(dir, name)
	if err != nil {
		return 0, fmt.Errorf("read link %s: %w", name, err)
	}
	return parseNamespaceLink(string(link))
}

func parseNamespaceLink(link string) (uint64, error) {
	_, rest, ok := strings.Cut(link, ":[")
	inode, closed := strings.CutSuffix(rest, "]")
	if !ok || !closed {
		return 0, fmt.Errorf("namespace link %q", link)
	}
	return strconv.ParseUint(inode, 10, 64)
}

var errTooLong = errors.New("longer than expected")

// extent says how a file of procfs comes out of read(2).
type extent bool

const (
	// single: made by one show function, so a read that leaves room in the buffer
	// has got all of it.
	single extent = true
	// whole: to be read until the end.
	whole extent = false
)

func (r *procReader) buffer() []byte {
	if r.buf == nil {
		r.buf = make([]byte, 8<<10)
	}
	return r.buf
}

// read reads a small file below an open directory; errTooLong with the first
// limit bytes where it is longer.
func (r *procReader) read(dir int, name string, limit int, ext extent) ([]byte, error) {
	fd, err := openAt(dir, name, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, vanished(err))
	}
	defer unix.Close(fd)
	r.buffer()
	for n := 0; ; {
		if n == len(r.buf) {
			r.buf = append(r.buf, make([]byte, len(r.buf))...)
		}
		got, err := unix.Read(fd, r.buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return r.buf[:n], fmt.Errorf("read %s: %w", name, vanished(err))
		}
		n += got
		if n > limit {
			return r.buf[:limit], fmt.Errorf("read %s: %w", name, errTooLong)
		}
		if got == 0 || ext == single && n < len(r.buf) {
			return r.buf[:n], nil
		}
	}
}

// link reads a symbolic link of procfs.
func (r *procReader) link(dir int, name string) ([]byte, error) {
	n, err := unix.Readlinkat(dir, name, r.buffer())
	return r.buf[:max(n, 0)], err
}

func vanished(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return errVanished
	}
	return err
}

func openAt(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}
