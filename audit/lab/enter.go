package lab

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Marker is the environment variable that a process inside the laboratory
// carries; its value is the network namespace that the laboratory was started
// from, as /proc/self/ns/net shows it. A test that starts its own binary with a
// cleaned environment (testscript does) passes it on.
const Marker = "LAB_OUTER_NETNS"

// whyOutside is the environment variable that tells the tests why the
// laboratory could not be entered.
const whyOutside = "LAB_NOT_ENTERED"

// Main runs the tests of m inside the laboratory and exits with their status.
// It is the whole body of a TestMain. Parallel tests are twice as many at once as
// there are cores, unless -parallel says how many: most of the time they wait.
func Main(m *testing.M) {
	Enter()
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set(strconv.Itoa(2 * runtime.GOMAXPROCS(0))); err != nil {
			fmt.Fprintf(os.Stderr, "lab: %v\n", err)
			os.Exit(2)
		}
	}
	os.Exit(m.Run())
}

// Enter returns inside the laboratory: outside, it starts this binary again with
// the same arguments in namespaces of its own, waits, and exits with its status.
//
// Root gets new mount and network namespaces. Everybody else, and a root
// without CAP_SYS_ADMIN, gets a user namespace first; the network namespace is
// created after the uid map is written, because /proc/net/ip_tables_names
// belongs to the uid 0 of that moment.
//
// Where the machine allows neither, Enter says so on stderr and returns
// outside; the pure tests still run, and everything that needs the laboratory
// skips (or fails, with CI=true) through Need and New.
func Enter() {
	outer, inside := os.LookupEnv(Marker)
	if inside {
		err := verify(outer)
		if err == nil {
			return
		}
		fmt.Fprintf(os.Stderr, "lab: %v\n", err)
		os.Exit(2)
	}
	if os.Getenv(whyOutside) != "" {
		return
	}
	var refused []error
	for _, asUser := range []bool{false, true} {
		if !asUser && os.Geteuid() != 0 {
			continue
		}
		status, err := reexec(asUser)
		if err == nil {
			os.Exit(status)
		}
		refused = append(refused, err)
	}
	reason := strings.ReplaceAll(errors.Join(refused...).Error(), "\n", "; ")
	fmt.Fprintf(os.Stderr, "lab: NOT ENTERED, every test that needs namespaces is skipped: %s\n", reason)
	if err := os.Setenv(whyOutside, reason); err != nil {
		fmt.Fprintf(os.Stderr, "lab: %v\n", err)
		os.Exit(2)
	}
}

// setupStep, as the first argument of the child, makes the first exec prepare
// its mounts and report whether it could, before the tests start.
const setupStep = "lab-setup-step"

// systemPath is where the tools are that a user without privilege seldom has in PATH.
const systemPath = ":/usr/local/sbin:/usr/sbin:/sbin"

// reexec starts this binary in new namespaces. An error means that the
// namespaces could not be made, and that no test has run.
func reexec(asUser bool) (status int, err error) {
	// The parent death signal follows the thread that forked.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	outer, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return 0, fmt.Errorf("read own network namespace: %w", err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("make a pipe: %w", err)
	}
	defer reader.Close()

	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), Marker+"="+outer, setupStep+"=1", "PATH="+os.Getenv("PATH")+systemPath)
	cmd.ExtraFiles = []*os.File{writer}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		Pdeathsig:    syscall.SIGKILL,
	}
	if asUser {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	how := "new mount and network namespaces"
	if asUser {
		how = "new user, mount and network namespaces as uid " + strconv.Itoa(os.Geteuid())
	}
	if err := cmd.Start(); err != nil {
		writer.Close()
		return 0, fmt.Errorf("%s: %w", how, err)
	}
	writer.Close()

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	defer signal.Stop(signals)
	go func() {
		for s := range signals {
			if s != syscall.SIGINT { // the terminal sends that one to both
				_ = cmd.Process.Signal(s)
			}
		}
	}()

	// One byte means: the namespaces are ready and the tests run.
	ready := make([]byte, 512)
	n, _ := reader.Read(ready)
	waitErr := cmd.Wait()
	if n == 0 || ready[0] != '+' {
		why := strings.TrimPrefix(string(ready[:n]), "-")
		return 0, fmt.Errorf("%s: %s (%w)", how, why, cmp.Or(waitErr, errors.New("ended without a test")))
	}
	if waitErr == nil {
		return 0, nil
	}
	var exit *exec.ExitError
	if errors.As(waitErr, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	fmt.Fprintf(os.Stderr, "lab: tests ended by %v\n", waitErr)
	return 1, nil
}

// verify proves that this process is in another network namespace than outer,
// pid 1 and its parent, and finishes the mounts on the first entry.
func verify(outer string) error {
	if _, first := os.LookupEnv(setupStep); first {
		report := os.NewFile(3, "lab-setup-report")
		if report == nil {
			return errors.New("no pipe to report on")
		}
		err := setup()
		if err == nil {
			err = elsewhere(outer)
		}
		if err != nil {
			_, _ = fmt.Fprintf(report, "-%v", err)
			report.Close()
			os.Exit(2)
		}
		if _, err := report.WriteString("+"); err != nil {
			return fmt.Errorf("report that the namespaces are ready: %w", err)
		}
		if err := report.Close(); err != nil {
			return fmt.Errorf("report that the namespaces are ready: %w", err)
		}
		return os.Unsetenv(setupStep)
	}
	return elsewhere(outer)
}

// elsewhere fails unless the current network namespace is none of those that
// belong to the machine.
func elsewhere(outer string) error {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return fmt.Errorf("read own network namespace: %w", err)
	}
	if !strings.HasPrefix(outer, "net:[") {
		return fmt.Errorf("%s=%q names no network namespace", Marker, outer)
	}
	if own == outer {
		return fmt.Errorf("still in the network namespace %s of the machine", own)
	}
	// From within a user namespace this link may not be read; outer, which the
	// parent read itself, has answered the question already.
	if init, err := os.Readlink("/proc/1/ns/net"); err == nil && init == own {
		return fmt.Errorf("in the network namespace %s of pid 1", own)
	}
	return nil
}

// setup makes the mounts of the laboratory: a /run of its own, and everything
// that would reach the machine read-only.
func setup() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount a tmpfs on /run: %w", err)
	}
	for _, dir := range []string{"/run/lock", "/run/netns"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	// fs.*, vm.* and kernel.* sysctls are global even in here.
	if err := remountBind("/proc/sys", true); err != nil {
		return err
	}
	if err := remountBind("/proc/sys/net", false); err != nil {
		return err
	}
	return remountBind("/etc", true)
}

// remountBind binds path over itself, read-only or writable. The other flags
// stay, since a user namespace may not drop those it found.
func remountBind(path string, readOnly bool) error {
	if err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", path, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", path, err)
	}
	// ST_NOSUID … ST_RELATIME have the values of their MS_ twins, except
	// ST_RELATIME (statfs(2)).
	flags := uintptr(st.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME)
	if st.Flags&unix.ST_RELATIME != 0 {
		flags |= unix.MS_RELATIME
	}
	if readOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
		return fmt.Errorf("remount %s: %w", path, err)
	}
	return nil
}
