package sysctl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The tests that let real programs write sysctls run in a child process with
// network and mount namespaces of its own, in a root directory on a tmpfs, with
// everything below /proc/sys but net mounted read-only. fs.*, vm.* and kernel.*
// are the machine's even in a namespace, so the child proves that they are out
// of reach before it starts anything.
const sandboxEnv = "SYSCTL_TEST_SANDBOX"

// sandboxJobs are what the child can be asked to do.
var sandboxJobs = map[string]func(s *sandbox) error{
	"loaders":     runLoaderDifferential,
	"propagation": runPropagation,
	"store":       runStoreDifferential,
	"write":       runWriteJob,
	"defaults":    runDefaults,
}

func TestMain(m *testing.M) {
	if job := os.Getenv(sandboxEnv); job != "" {
		if err := inSandbox(sandboxJobs[job]); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// sandboxed runs a job in the sandbox and returns what it printed. Where the
// sandbox cannot be had the test is skipped with the reason, and fails under CI.
func sandboxed(t *testing.T, job string, env ...string) string {
	t.Helper()
	ns, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), sandboxEnv+"="+job, "SYSCTL_TEST_OUTER_NETNS="+ns, "SYSCTL_TEST_TMP="+t.TempDir())
	cmd.Env = append(cmd.Env, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	switch {
	case err != nil && (errors.Is(err, syscall.EPERM) || strings.Contains(out.String(), "sandbox: ")):
		missing(t, "no sandbox for real loaders: %v %s", err, out.String())
	case err != nil:
		t.Fatalf("%v\n%s", err, out.String())
	}
	return out.String()
}

// missing reports loudly that the machine lacks something; in CI that is a failure.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// sandbox is the throw-away root.
type sandbox struct {
	root string
}

// inSandbox builds the sandbox, checks it and runs the job. Its own failures
// begin with "sandbox: ".
func inSandbox(job func(*sandbox) error) error {
	s, err := newSandbox()
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	if job == nil {
		return errors.New("no such job")
	}
	return job(s)
}

func newSandbox() (*sandbox, error) {
	// Positive proof that the namespaces are ours.
	ns, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	if outer := os.Getenv("SYSCTL_TEST_OUTER_NETNS"); outer == "" || outer == ns {
		return nil, errors.New("still in the machine's network namespace")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	s := &sandbox{root: filepath.Join(os.Getenv("SYSCTL_TEST_TMP"), "root")}
	if err := os.MkdirAll(s.root, 0o755); err != nil {
		return nil, err
	}
	if err := unix.Mount("tmpfs", s.root, "tmpfs", 0, "size=256m"); err != nil {
		return nil, fmt.Errorf("mount tmpfs: %w", err)
	}
	for _, dir := range []string{"proc", "dev", "etc", "run", "usr/lib", "usr/local/lib", "lib", "opt", "tmp"} {
		if err := os.MkdirAll(filepath.Join(s.root, dir), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(s.root, "dev/null"), nil, 0o666); err != nil {
		return nil, err
	}
	if err := unix.Mount("/dev/null", filepath.Join(s.root, "dev/null"), "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("bind /dev/null: %w", err)
	}
	if err := unix.Mount("/proc", filepath.Join(s.root, "proc"), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return nil, fmt.Errorf("bind /proc: %w", err)
	}
	for _, sys := range []string{"/proc/sys", filepath.Join(s.root, "proc/sys")} {
		if err := guardProcSys(sys); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// guardProcSys makes everything below /proc/sys but net read-only, and proves
// it without writing: by the mount's flags and by access(2).
func guardProcSys(sys string) error {
	for _, m := range []struct {
		path string
		ro   uintptr
	}{{sys, unix.MS_RDONLY}, {sys + "/net", 0}} {
		if err := unix.Mount(m.path, m.path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", m.path, err)
		}
		flags := unix.MS_BIND | unix.MS_REMOUNT | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | m.ro
		if err := unix.Mount("", m.path, "", flags, ""); err != nil {
			return fmt.Errorf("remount %s: %w", m.path, err)
		}
	}
	for _, p := range []string{"/kernel", "/kernel/pid_max", "/fs/file-max", "/vm/swappiness"} {
		var st unix.Statfs_t
		if err := unix.Statfs(sys+p, &st); err != nil {
			return err
		}
		if st.Flags&unix.ST_RDONLY == 0 {
			return fmt.Errorf("%s is not on a read-only mount", sys+p)
		}
		if err := unix.Access(sys+p, unix.W_OK); !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EACCES) {
			return fmt.Errorf("%s could be written: access says %v", sys+p, err)
		}
	}
	if err := unix.Access(sys+"/net/ipv4/tcp_fin_timeout", unix.W_OK); err != nil {
		return fmt.Errorf("%s/net should be writable: %w", sys, err)
	}
	return nil
}

var libraryPath = regexp.MustCompile(`(?:=> |^\s*)(/\S+) \(0x`)

// install copies a program and the libraries it is linked with into the root,
// each under the path it is looked for.
func (s *sandbox) install(program string) error {
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		return fmt.Errorf("ldd %s: %w", program, err)
	}
	paths := []string{program}
	for _, line := range strings.Split(string(out), "\n") {
		if m := libraryPath.FindStringSubmatch(line); m != nil {
			paths = append(paths, m[1])
		}
	}
	for _, p := range paths {
		if err := copyFile(p, filepath.Join(s.root, p)); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

// run starts a program with the sandbox as its root directory.
func (s *sandbox) run(argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Path = argv[0]
	cmd.Err = nil
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: s.root, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && !exit.Sys().(syscall.WaitStatus).Signaled() {
		err = nil // both loaders exit with 1 for many harmless reasons
	}
	return string(out), err
}
