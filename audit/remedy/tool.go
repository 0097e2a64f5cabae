package remedy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall/owner"
)

// toolDirs are where programs are looked for. PATH is not asked.
var toolDirs = []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// kernelTools speak to the kernel alone and are taken from the running system;
// every other program belongs to the owner of the files and is run with Root as
// its root directory.
var kernelTools = []string{"nft", "iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy",
	"iptables-nft-restore", "ip6tables-nft-restore", "iptables-legacy-restore", "ip6tables-legacy-restore", "systemd-run", "systemctl"}

// maxToolOutput bounds what is kept of a program's output.
const maxToolOutput = 64 << 10

// toolError is a program that ended with another status than 0.
type toolError struct {
	argv   []string
	status int // -1: it was killed or did not end
	output string
	err    error
}

func (e *toolError) Error() string {
	return fmt.Sprintf("%s: %v%s", strings.Join(e.argv, " "), e.err, prefixed(": ", e.output))
}

func (e *toolError) Unwrap() error { return e.err }

// findTool finds a program by its base name in the fixed places: a plain file
// that nobody but root can change.
func findTool(root, name string) (string, error) {
	if path.Base(name) != name {
		return "", fmt.Errorf("%q is not the name of a program", name)
	}
	for _, d := range toolDirs {
		p := d + "/" + name
		var st unix.Stat_t
		if err := unix.Stat(path.Join(root, p), &st); err != nil {
			continue
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 {
			continue
		}
		if st.Uid != 0 || st.Mode&0o022 != 0 {
			return "", fmt.Errorf("%s: others than root can change it", p)
		}
		return p, nil
	}
	return "", fmt.Errorf("%s: no such program in %s", name, strings.Join(toolDirs, ", "))
}

// rootOf is the root directory that a program is run with.
func (s *System) rootOf(program string) string {
	if slices.Contains(kernelTools, program) {
		return "/"
	}
	return s.root()
}

// programs refuses steps for which a program is missing, before anything is begun.
func (s *System) programs(steps []Step) error {
	for i := range steps {
		var names []string
		switch st := &steps[i]; {
		case st.Rule != nil:
			names = []string{st.Rule.Program()}
		case st.Tool != nil:
			names = []string{st.Tool.Do[0]}
		case st.File != nil:
			for _, argv := range [][]string{st.File.Check, st.File.Reload} {
				if len(argv) > 0 {
					names = append(names, argv[0])
				}
			}
		}
		for _, name := range names {
			if _, err := findTool(s.rootOf(name), name); err != nil {
				return fmt.Errorf("%s: %w", &steps[i], err)
			}
		}
	}
	return nil
}

// run runs a program without a shell: absolute path, clean environment, bounded
// time and output. Its word is not taken for anything: see observe.
func (s *System) run(ctx context.Context, argv []string, stdin string) (string, error) {
	root := s.rootOf(argv[0])
	p, err := findTool(root, argv[0])
	if err != nil {
		return "", err
	}
	return s.send(ctx, &errand{Argv: append([]string{p}, argv[1:]...), Root: root, Stdin: stdin}, argv)
}

// iptables puts a rule of iptables in, or takes it out, through go-iptables.
func (s *System) iptables(ctx context.Context, i *owner.Insertion, in bool) error {
	p, err := findTool("/", i.Program())
	if err != nil {
		return err
	}
	argv, _ := i.Do()
	if !in {
		argv, _ = i.Undo(0)
	}
	_, err = s.send(ctx, &errand{Rule: i, In: in, Path: p}, argv)
	return err
}

// send has an errand done by a process of this program, which keeps the lock as long
// as it works. One that has begun is not interrupted: a program that is killed while
// it writes its own files could leave half of them.
func (s *System) send(ctx context.Context, e *errand, argv []string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", &toolError{argv: argv, status: -1, err: fmt.Errorf("not begun: %w", context.Cause(ctx))}
	}
	e.Time = s.ToolTime
	// It ends itself when its time is up; this is for the case that it cannot.
	const grace = 2 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.ToolTime+grace)
	defer cancel()
	told, err := json.Marshal(e)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", ErrandCommand)
	cmd.Args[0] = "hostaudit"
	cmd.Env, cmd.Dir = toolEnv(), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		if errors.Is(err, unix.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	cmd.WaitDelay = grace
	if s.at != nil {
		fd, err := unix.FcntlInt(uintptr(s.at.lock), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return "", fmt.Errorf("hand on the lock: %w", err)
		}
		lock := os.NewFile(uintptr(fd), "lock")
		defer func() { _ = lock.Close() }()
		cmd.ExtraFiles = []*os.File{lock} // lockFD
	}
	cmd.Stdin = bytes.NewReader(told)
	out := &capped{over: cancel}
	cmd.Stdout, cmd.Stderr = out, out
	if err = cmd.Run(); err == nil {
		return out.b.String(), nil
	}
	t := &toolError{argv: argv, status: -1, output: strings.TrimSpace(out.b.String()), err: err}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited() && exit.ExitCode() != errandFailed:
		t.status = exit.ExitCode()
	case t.output != "":
		t.err, t.output = errors.New(t.output), "" // what the errand said of it
	}
	return out.b.String(), t
}

// capped keeps the first part of an output and ends the program that writes more.
type capped struct {
	b       bytes.Buffer
	flooded bool
	over    func()
}

func (c *capped) Write(p []byte) (int, error) {
	if room := maxToolOutput - c.b.Len(); len(p) > room {
		c.b.Write(p[:max(room, 0)])
		c.flooded = true
		c.over()
		return len(p), nil
	}
	return c.b.Write(p)
}
