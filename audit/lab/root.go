package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Root is a copy of this machine's files for programs that insist on their own
// paths: an overlay whose changes are in memory and seen by nobody else.
type Root struct {
	// Path is where it lies.
	Path string
	in   *Namespace
}

// ThrowAway makes a copy of this machine's files beneath dir, which must not
// exist, for programs that run in the namespace. It ends with the test. /proc
// and its sysctls are those of the laboratory; /run is empty.
func (n *Namespace) ThrowAway(t testing.TB, dir string) *Root {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(dir, 0o755))
	must(unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	for _, name := range []string{"up", "work", "root"} {
		must(os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	root := filepath.Join(dir, "root")
	err := unix.Mount("overlay", root, "overlay", 0, "lowerdir=/,upperdir="+dir+"/up,workdir="+dir+"/work")
	if err != nil {
		missing(t, "no overlay of this machine's files can be made: "+err.Error())
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	must(unix.Mount("/proc", filepath.Join(root, "proc"), "", unix.MS_BIND|unix.MS_REC, ""))
	must(unix.Mount("/dev", filepath.Join(root, "dev"), "", unix.MS_BIND|unix.MS_REC, ""))
	must(unix.Mount("tmpfs", filepath.Join(root, "run"), "tmpfs", 0, "mode=0755"))
	must(os.Mkdir(filepath.Join(root, "run/lock"), 0o755))
	return &Root{Path: root, in: n}
}

// Run runs a program of the root, for a test that cannot go on without its
// success, and returns its stdout.
func (r *Root) Run(t testing.TB, argv ...string) string {
	t.Helper()
	return r.in.Run(t, r.argv(argv)...)
}

// Daemon is [Namespace.Daemon] for a program of the root.
func (r *Root) Daemon(t testing.TB, argv ...string) *exec.Cmd {
	t.Helper()
	return r.in.Daemon(t, r.argv(argv)...)
}

// argv enters the root; /proc/self/ns/net of the program is the namespace.
func (r *Root) argv(argv []string) []string { return append([]string{"chroot", r.Path}, argv...) }

// Write puts a file into the root.
func (r *Root) Write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(r.Path, filepath.Dir(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.Path, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Edit replaces text in a file of the root; text that is not there ends the test.
func (r *Root) Edit(t testing.TB, name, before, after string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.Path, name))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), before) {
		t.Fatalf("%s has no %q", name, before)
	}
	r.Write(t, name, strings.Replace(string(data), before, after, 1))
}

// IPTables makes the names without a back end (iptables, ip6tables-restore, …)
// those of one, as update-alternatives(1) does: "nft" or "legacy".
func (r *Root) IPTables(t testing.TB, backend string) {
	t.Helper()
	for _, program := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			link := filepath.Join(r.Path, "etc/alternatives", program+suffix)
			if err := os.Remove(link); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			if err := os.Symlink("/usr/sbin/"+program+"-"+backend+suffix, link); err != nil {
				t.Fatal(err)
			}
		}
		if out := r.Run(t, program, "--version"); !strings.Contains(out, backend+")") && (backend != "nft" || !strings.Contains(out, "nf_tables")) {
			t.Fatalf("%s is %s, want the back end %s", program, strings.TrimSpace(out), backend)
		}
	}
}

// Daemon runs a program in the namespace until the test ends, which asks it to
// end and, 15 seconds later, ends it with its process group. What it printed is
// shown where the test failed.
func (n *Namespace) Daemon(t testing.TB, argv ...string) *exec.Cmd {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	// No parent death signal: it would follow the thread, which Go ends as it likes.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdout, cmd.Stderr = log, log
	if err := n.Start(cmd); err != nil {
		t.Fatalf("start %v: %v", argv, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(15 * time.Second):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			lines := strings.Split(string(said), "\n")
			t.Logf("%v said:\n%s", argv, strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
		_ = log.Close()
	})
	return cmd
}
