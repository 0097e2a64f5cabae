package listeners

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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
	NetNS            uint64     `json:"netns,omitempty"` // 0: may not be read
	PIDNS            uint64     `json:"pidns,omitempty"`
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

// describe fills in everything of the process behind dir, an open directory
// /proc/PID. Such a directory stays with its process: once that is gone every
// look-up fails with ESRCH, even if the pid is in use again. The start time is
// compared before and after all the same.
func describe(dir, pid int) (Process, error) {
	p := Process{PID: pid, Files: FileLimit{Open: -1}}
	comm, start, err := statAt(dir)
	if err != nil {
		return p, err
	}
	p.Comm, p.Start = comm, start

	p.untold("executable", p.readExe(dir))
	p.untold("command line", p.readCommand(dir))
	p.untold("user", p.readStatus(dir))
	p.untold("cgroup", p.readCgroup(dir))
	p.untold("limits", p.readLimits(dir))
	p.untold("open files", p.countFiles(dir))
	var err1, err2 error
	p.NetNS, err1 = namespaceAt(dir, "ns/net")
	p.PIDNS, err2 = namespaceAt(dir, "ns/pid")
	p.untold("namespaces", errors.Join(err1, err2))

	_, again, err := statAt(dir)
	if err != nil {
		return p, err
	}
	if again != start {
		return p, errVanished
	}
	return p, nil
}

func (p *Process) untold(what string, err error) {
	if err != nil {
		p.Untold = append(p.Untold, Gap{What: what, Why: err.Error()})
	}
}

// statAt reads comm and start time from DIR/stat (man 5 proc_pid_stat). The
// comm is free text in parentheses, parentheses included: the last one counts.
func statAt(dir int) (HostText, uint64, error) {
	b, err := readAt(dir, "stat", maxProcFile)
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

func (p *Process) readExe(dir int) error {
	path, err := linkAt(dir, "exe")
	if err != nil {
		if err == unix.ENOENT {
			return nil // a kernel thread has none
		}
		return err
	}
	if rest, deleted := strings.CutSuffix(path, " (deleted)"); deleted {
		path, p.ExeDeleted = rest, true
	}
	p.Exe = HostText(path)
	return nil
}

func (p *Process) readCommand(dir int) error {
	b, err := readAt(dir, "cmdline", maxCommand+1)
	if err != nil && !errors.Is(err, errTooLong) {
		return err
	}
	if len(b) > maxCommand {
		b, p.CommandTruncated = b[:maxCommand], true
	}
	p.Command = HostText(bytes.TrimRight(b, "\x00"))
	return nil
}

func (p *Process) readStatus(dir int) error {
	b, err := readAt(dir, "status", maxProcFile)
	if err != nil {
		return err
	}
	uid, err := parseStatusUID(b)
	p.UID = uid
	return err
}

// parseStatusUID gives the effective uid: "Uid:\treal\teffective\tsaved\tfs".
func parseStatusUID(b []byte) (uint32, error) {
	for line := range bytes.Lines(b) {
		if f := bytes.Fields(line); len(f) == 5 && string(f[0]) == "Uid:" {
			return parseUint32(f[2], 10)
		}
	}
	return 0, errors.New("parse status: no Uid line")
}

func (p *Process) readLimits(dir int) error {
	b, err := readAt(dir, "limits", maxProcFile)
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
func (p *Process) countFiles(dir int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, "fd", &st, 0); err != nil {
		return err
	}
	fd, err := openAt(dir, "fd", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if st.Size > 0 {
		p.Files.Open = int(st.Size)
		return nil
	}
	buf := make([]byte, 32<<10)
	n := 0
	for {
		got, err := unix.Getdents(fd, buf)
		if err != nil {
			return err
		}
		if got <= 0 {
			p.Files.Open = n
			return nil
		}
		for range numericEntries(buf[:got]) {
			n++
		}
	}
}

// namespaceAt reads a link like "net:[4026531840]".
func namespaceAt(dir int, name string) (uint64, error) {
	link, err := linkAt(dir, name)
	if err != nil {
		return 0, fmt.Errorf("read link %s: %w", name, err)
	}
	return parseNamespaceLink(link)
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

// readAt reads a whole small file below an open directory; errTooLong with the
// first limit bytes where it is longer.
func readAt(dir int, name string, limit int) ([]byte, error) {
	fd, err := openAt(dir, name, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, vanished(err))
	}
	defer unix.Close(fd)
	var out []byte
	buf := make([]byte, min(limit, 4096))
	for len(out) < limit {
		n, err := unix.Read(fd, buf[:min(len(buf), limit-len(out))])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return out, fmt.Errorf("read %s: %w", name, vanished(err))
		}
		if n == 0 {
			return out, nil
		}
		out = append(out, buf[:n]...)
	}
	n, err := unix.Read(fd, buf[:1])
	if err != nil && err != io.EOF {
		return out, fmt.Errorf("read %s: %w", name, vanished(err))
	}
	if n > 0 {
		return out, fmt.Errorf("read %s: %w", name, errTooLong)
	}
	return out, nil
}

func vanished(err error) error {
	if err == unix.ESRCH {
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

func linkAt(dir int, name string) (string, error) {
	buf := make([]byte, 4096)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
