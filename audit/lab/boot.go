package lab

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed testdata/boot/make
var bootMake string

//go:embed testdata/boot/inside
var bootAlone string

// BootBase is a Debian that boots: systemd, D-Bus, and the owners of rulesets, of
// which none is at work (testdata/boot/make). It is made once and kept below the
// user's cache directory, in the network namespace from which the laboratory was
// entered, for its packages come from there. It takes the real root; without, the
// test is skipped loudly.
func BootBase(t testing.TB) string {
	t.Helper()
	Need(t, "debootstrap", "systemd-nspawn", "script", "unshare", "nsenter")
	if own, err := os.ReadFile("/proc/self/uid_map"); err != nil || len(strings.Fields(string(own))) != 3 || strings.Fields(string(own))[2] != "4294967295" {
		missing(t, "the real root is needed to boot a system")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(cache, "hostaudit-test", "boot-bookworm-1")
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil {
		t.Fatal(err)
	}
	// Tests of several packages run side by side: the first makes it.
	lock, err := os.OpenFile(base+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(base); err == nil {
		return base
	}
	half := fmt.Sprintf("%s.%d", base, os.Getpid())
	start := time.Now()
	cmd := exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", os.Getppid()), "sh", "-c", bootMake, "make", half)
	out, err := cmd.CombinedOutput()
	if err != nil {
		os.RemoveAll(half)
		missing(t, fmt.Sprintf("a system to boot could not be made: %v: %s", err, out[max(0, len(out)-800):]))
	}
	t.Logf("made %s in %.0f s", base, time.Since(start).Seconds())
	if err := os.Rename(half, base); err != nil {
		t.Fatal(err)
	}
	return base
}

// BootCopy is a copy of a base whose changes are in memory. It ends with the test.
func BootCopy(t testing.TB, base string) string {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	root := filepath.Join(dir, "root")
	for _, d := range []string{"up", "work", "root"} {
		must(os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	must(unix.Mount("overlay", root, "overlay", 0, "lowerdir="+base+",upperdir="+dir+"/up,workdir="+dir+"/work"))
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	return root
}

// bootInside is what boots a root; script gives it the terminal that it wants.
func bootInside(root, network string) []string {
	return []string{"script", "-qec", "unshare -m sh -c '" + strings.ReplaceAll(bootAlone, "'", `'\''`) + "' inside " + root + " " + network, "/dev/null"}
}

// BootOnce boots a root once, in a network of its own, until it powers off or
// reboots, and returns what its console showed.
func BootOnce(t testing.TB, root string) string {
	t.Helper()
	argv := append([]string{"-k", "5", "180"}, bootInside(root, "--private-network")...)
	out, _ := exec.Command("timeout", argv...).CombinedOutput() // how it ends says nothing: it may have rebooted
	return string(out)
}

// Booted is a system that runs in a namespace's network.
type Booted struct {
	// Init is its first process, Root what that has for a root, seen from here.
	Init int
	Root string
}

// Boot boots a root and waits until systemd has started everything. It is powered
// off when the test ends.
func (n *Namespace) Boot(t testing.TB, root string) *Booted {
	t.Helper()
	console, err := os.Create(filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	shown := func() string {
		said, _ := os.ReadFile(console.Name())
		return string(said[max(0, len(said)-3000):])
	}
	// Where the test is killed it ends by itself.
	cmd := exec.Command("timeout", append([]string{"-k", "5", "1200"}, bootInside(root, "")...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdout, cmd.Stderr = console, console
	if err := n.Start(cmd); err != nil {
		t.Fatalf("boot %s: %v", root, err)
	}
	b := &Booted{}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		if b.Init > 0 {
			_ = syscall.Kill(b.Init, 34+4) // SIGRTMIN+4: power off
		}
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			if b.Init > 0 {
				_ = syscall.Kill(b.Init, syscall.SIGKILL)
			}
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
	})
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		select {
		case <-ended:
			t.Fatalf("%s did not boot:\n%s", root, shown())
		default:
		}
		if b.Init == 0 {
			b.Init = firstBelow(cmd.Process.Pid)
			b.Root = fmt.Sprintf("/proc/%d/root", b.Init)
		} else if _, err := os.Stat(b.Root + "/run/systemd/private"); err == nil {
			// degraded is well, too: a unit or two may not like a container.
			out, err := b.Run(t, "systemctl", "is-system-running", "--wait")
			if state := strings.TrimSpace(out); state == "running" || state == "degraded" {
				return b
			} else if time.Now().After(end) {
				t.Fatalf("%s boots no further than %q: %v\n%s", root, state, err, shown())
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not boot:\n%s", root, shown())
		}
	}
}

// Run runs a program in there.
func (b *Booted) Run(t testing.TB, argv ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second) // cleanups run things, too
	defer cancel()
	out, err := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(b.Init), "-m", "-u", "-i", "-n", "-p", "-C", "--"}, argv...)...).CombinedOutput()
	return string(out), err
}

// firstBelow finds the descendant of a process that is the first of a pid
// namespace, 0 for none.
func firstBelow(pid int) int {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	for _, f := range strings.Fields(string(children)) {
		child, err := strconv.Atoi(f)
		if err != nil {
			continue
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", child))
		if err != nil {
			continue
		}
		for line := range bytes.Lines(status) {
			if v, ok := bytes.CutPrefix(line, []byte("NSpid:")); ok {
				if n := strings.Fields(string(v)); len(n) == 2 && n[1] == "1" {
					return child
				}
			}
		}
		if found := firstBelow(child); found > 0 {
			return found
		}
	}
	return 0
}
