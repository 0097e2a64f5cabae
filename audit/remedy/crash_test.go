package remedy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/sysctl"
)

// bench is a place to break an apply in: a root of its own and a network namespace
// of its own.
type bench struct {
	t     testing.TB
	ns    *lab.Namespace
	root  string
	plan  string
	steps []Step
	exe   string
}

func newBench(t testing.TB) *bench {
	t.Helper()
	lab.Need(t, "strace")
	l := lab.New(t, lab.Topology{})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, ns: l.Server, exe: exe, root: filepath.Join(t.TempDir(), "remedy-test"), steps: testSteps(t, newA)}
	plan, err := json.Marshal(b.steps)
	if err != nil {
		t.Fatal(err)
	}
	b.plan = string(plan)
	b.reset()
	return b
}

// reset makes everything old.
func (b *bench) reset() {
	b.t.Helper()
	if err := os.RemoveAll(b.root); err != nil {
		b.t.Fatal(err)
	}
	for _, d := range []string{"etc/sysctl.d", "etc/modules-load.d", "var/lib", "run"} {
		if err := os.MkdirAll(filepath.Join(b.root, d), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	b.write(sysctl.ModulesDropInPath, "# old\n")
	b.ns.Sysctl(b.t, string(keyA), oldA, string(keyB), oldB)
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.root, name), []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// point is one place to break at: the k-th call of a system call in a thread. errno
// "" kills the process as the call begins.
type point struct {
	call   string
	k      int
	errno  string
	signal string // another one than KILL
}

func (p point) String() string {
	what := "KILL"
	if p.errno != "" {
		what = p.errno
	}
	return fmt.Sprintf("%s at %s #%d", what, p.call, p.k)
}

// run runs the child, broken at a point (nil: undisturbed), and says whether the
// point was reached.
func (b *bench) run(what string, p *point, env ...string) (code int, fired bool, output string) {
	b.t.Helper()
	argv := []string{b.exe}
	trace := filepath.Join(filepath.Dir(b.root), "trace")
	if p != nil {
		inject := fmt.Sprintf("inject=%s:signal=%s:when=%d", p.call, cmp.Or(p.signal, "KILL"), p.k)
		if p.errno != "" {
			inject = fmt.Sprintf("inject=%s:error=%s:when=%d", p.call, p.errno, p.k)
		}
		argv = []string{"strace", "-f", "-qq", "-o", trace, "-e", "trace=" + p.call, "-e", inject}
		if p.errno != "" { // stop at that call alone; strace cannot send signals so
			argv = append(argv, "--seccomp-bpf")
		}
		argv = append(argv, b.exe)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=1", lab.Marker + "=" + os.Getenv(lab.Marker), "REMEDY_CHILD=" + what, "REMEDY_ROOT=" + b.root, "REMEDY_PLAN=" + b.plan}, env...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := b.ns.Start(cmd); err != nil {
		b.t.Fatal(err)
	}
	_ = cmd.Wait()
	code = cmd.ProcessState.ExitCode()
	if p != nil {
		text, err := os.ReadFile(trace)
		if err != nil {
			b.t.Fatal(err)
		}
		fired = p.signal != "" && strings.Contains(string(text), "--- SIG"+p.signal+" ") || strings.Contains(string(text), "(INJECTED)") || strings.Contains(string(text), "killed by SIGKILL")
	}
	return code, fired, out.String()
}

// now is where the host stands: "old", "new", or what is wrong.
func (b *bench) now() string {
	b.t.Helper()
	read := func(k sysctl.Key) string {
		data, err := b.ns.ReadFile("/proc/sys/" + k.Path())
		if err != nil {
			b.t.Fatal(err)
		}
		return strings.Join(strings.Fields(string(data)), " ")
	}
	file := func(name string) string {
		data, err := os.ReadFile(filepath.Join(b.root, name))
		if err != nil {
			return "(none)"
		}
		return string(data)
	}
	is := []string{read(keyA), read(keyB), file(sysctl.DropInPath), file(sysctl.ModulesDropInPath)}
	var wasnt []string
	switch {
	case slices.Equal(is, []string{oldA, strings.Join(strings.Fields(oldB), " "), "(none)", "# old\n"}):
		return "old"
	case slices.Equal(is, []string{newA, newB, string(b.steps[2].File.After), "# new\n"}):
		return "new"
	}
	wasnt = append(wasnt, is...)
	return fmt.Sprintf("neither old nor new: %q", wasnt)
}

// leftovers are temporary files and open journals.
func (b *bench) leftovers() string {
	b.t.Helper()
	var out []string
	err := filepath.WalkDir(b.root, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasSuffix(name, tempSuffix) || filepath.Base(name) == journalName {
			out = append(out, name)
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.Join(out, " ")
}

// sysCalls are those whose every occurrence is broken.
var sysCalls = []string{"openat", "write", "pwrite64", "read", "fsync", "renameat", "unlinkat", "mkdirat", "flock", "close", "fchmod", "fchown", "fstat", "fstatfs", "newfstatat", "getdents64", "fcntl"}

// must fire at least once, or the sweep is not one.
var mustFire = []string{"openat", "write", "read", "fsync", "renameat", "unlinkat", "mkdirat", "flock", "close", "fchmod", "fchown", "fstat"}

// sweep breaks an apply at every call; verify judges each point.
func sweep(t *testing.T, errnos []string, calls []string, judge func(b *bench, p point, code int, output string) error) (points, bad int) {
	t.Helper()
	type job struct {
		call, errno string
	}
	var jobs []job
	for _, errno := range errnos {
		for _, c := range calls {
			jobs = append(jobs, job{c, errno})
		}
	}
	next := make(chan job, len(jobs))
	for _, j := range jobs {
		next <- j
	}
	close(next)
	var mu sync.Mutex
	fired := map[job]int{}
	var wg sync.WaitGroup
	for range min(runtime.NumCPU(), 4) {
		b := newBench(t)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range next {
				for k := 1; ; k++ {
					p := point{call: j.call, k: k, errno: j.errno}
					b.reset()
					code, hit, output := b.run("apply", &p)
					if !hit {
						break
					}
					err := judge(b, p, code, output)
					mu.Lock()
					fired[j]++
					points++
					if err != nil {
						bad++
						if bad <= 5 {
							t.Logf("%v: %v\n%s", p, err, output)
						}
					}
					mu.Unlock()
				}
			}
		}()
	}
	wg.Wait()
	for _, j := range jobs {
		if fired[j] == 0 && slices.Contains(mustFire, j.call) {
			t.Errorf("no %s was broken: this test does not test what it says", j.call)
		}
	}
	return points, bad
}

// afterKill: whatever was cut off, recovery brings all of it back, or all of it
// was done.
func afterKill(b *bench, p point, _ int, _ string) error {
	code, _, output := b.run("recover", nil)
	if code != 0 {
		return fmt.Errorf("recover ended with %d: %s", code, output)
	}
	if now := b.now(); now != "old" && now != "new" {
		return fmt.Errorf("%s", now)
	}
	if l := b.leftovers(); l != "" {
		return fmt.Errorf("left behind: %s", l)
	}
	return nil
}

// TestKilledAtEveryCall kills an apply before each of its system calls.
func TestKilledAtEveryCall(t *testing.T) {
	t.Parallel()
	points, bad := sweep(t, []string{""}, sysCalls, afterKill)
	t.Logf("killed at %d points, %d bad", points, bad)
	if bad > 0 {
		t.Errorf("%d of %d points end in an illegal state", bad, points)
	}
	if points < 150 {
		t.Errorf("only %d points: there were more", points)
	}
}

// TestErrorAtEveryCall fails each system call once with each error: the exit code
// tells the truth.
func TestErrorAtEveryCall(t *testing.T) {
	t.Parallel()
	failing := []string{"openat", "write", "fsync", "renameat", "unlinkat", "mkdirat", "flock", "fchmod", "fchown", "fstat", "close"}
	points, bad := sweep(t, []string{"EIO", "ENOSPC", "EROFS"}, failing, func(b *bench, p point, code int, output string) error {
		now := b.now()
		if code == 127 && strings.Contains(output, "shared libraries") {
			return nil // the dynamic loader failed; the program never began
		}
		switch {
		case code == 0 && now != "new", code == 4 && now != "old", code == 6 && now != "old", code != 0 && code != 4 && code != 6:
			return fmt.Errorf("exit code %d and %s", code, now)
		}
		if err := afterKill(b, p, code, output); err != nil {
			return err
		}
		if again := b.now(); again != now {
			return fmt.Errorf("exit code %d: it was %s, and after recovery %s", code, now, again)
		}
		return nil
	})
	t.Logf("failed at %d points, %d bad", points, bad)
	if bad > 0 {
		t.Errorf("%d of %d points end in an illegal state, or with the wrong exit code", bad, points)
	}
	if points < 200 {
		t.Errorf("only %d points: there were more", points)
	}
}

// TestKilledInRecovery kills an apply at points where its journal is open, then the
// recovery at each of its calls, then recovers.
func TestKilledInRecovery(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	inner, bad := 0, 0
	outer := []point{{call: "renameat", k: 3}, {call: "renameat", k: 5}, {call: "renameat", k: 8}, {call: "fsync", k: 12}}
	var wg sync.WaitGroup
	next := make(chan point, len(outer))
	for _, p := range outer {
		next <- p
	}
	close(next)
	for range min(runtime.NumCPU(), 4) {
		b := newBench(t)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for o := range next {
				for _, call := range []string{"openat", "write", "fsync", "renameat", "unlinkat", "flock", "close"} {
					for k := 1; ; k++ {
						b.reset()
						if _, hit, _ := b.run("apply", &o); !hit {
							mu.Lock()
							t.Errorf("%v was not reached", o)
							mu.Unlock()
							return
						}
						p := point{call: call, k: k}
						if _, hit, _ := b.run("recover", &p); !hit {
							break
						}
						err := afterKill(b, p, 0, "")
						mu.Lock()
						inner++
						if err == nil && b.now() == "new" && o.k < 8 {
							err = fmt.Errorf("new, although it was never confirmed")
						}
						if err != nil {
							if bad++; bad <= 5 {
								t.Logf("%v, then %v: %v", o, p, err)
							}
						}
						mu.Unlock()
					}
				}
			}
		}()
	}
	wg.Wait()
	t.Logf("killed twice at %d points, %d bad", inner, bad)
	if bad > 0 || inner < 100 {
		t.Errorf("%d of %d points are bad; at least 100 are expected", bad, inner)
	}
}
