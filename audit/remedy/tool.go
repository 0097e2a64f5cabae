package remedy

import (
	"bytes"
	"context"
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

// run runs a program without a shell: absolute path, clean environment, bounded
// time and output. When its time is up the whole process group is killed. Its
// word is not taken for anything: see observe.
func (s *System) run(ctx context.Context, argv []string, stdin string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.ToolTime)
	defer cancel()
	root := "/"
	if !slices.Contains(kernelTools, argv[0]) {
		root = s.root()
	}
	p, err := findTool(root, argv[0])
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, p, argv[1:]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/root", "TERM=dumb"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if root != "/" {
		cmd.SysProcAttr.Chroot = root
	}
	cmd.Cancel = func() error {
		err := unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		if errors.Is(err, unix.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	cmd.WaitDelay = 2 * time.Second
	cmd.Stdin = strings.NewReader(stdin)
	out := &capped{over: cancel}
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	if err == nil && !out.flooded {
		return out.b.String(), nil
	}
	e := &toolError{argv: argv, status: -1, output: strings.TrimSpace(out.b.String()), err: err}
	var exit *exec.ExitError
	switch {
	case out.flooded:
		e.err = errors.New("more output than it should have")
		e.output = ""
	case ctx.Err() != nil:
		e.err = fmt.Errorf("killed: %w", context.Cause(ctx))
	case errors.As(err, &exit) && exit.Exited():
		e.status = exit.ExitCode()
	}
	return out.b.String(), e
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
