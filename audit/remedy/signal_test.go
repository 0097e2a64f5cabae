package remedy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// TestSignalAtEveryCall sends each signal that a login, a terminal or an operator
// sends, as an apply renames and writes: its exit code tells the truth, or it is
// dead and the recovery brings everything back.
func TestSignalAtEveryCall(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	points, bad := 0, 0
	for _, sig := range []string{"INT", "TERM", "HUP", "QUIT", "PIPE", "USR1"} {
		for _, call := range []string{"renameat", "fsync"} {
			if call == "fsync" && sig != "HUP" && sig != "TERM" {
				continue // those that end the login
			}
			for k := 1; ; k++ {
				b.reset()
				code, hit, output := b.run("apply", &point{call: call, k: k, signal: sig})
				if !hit {
					break
				}
				points++
				now := b.now()
				err := func() error {
					if code == 0 && now != "new" || (code == 4 || code == 6) && now != "old" {
						return fmt.Errorf("exit code %d and %s", code, now)
					}
					if err := afterKill(b, point{}, code, ""); err != nil {
						return err
					}
					if again := b.now(); code >= 0 && code < 7 && code != 2 && again != now {
						return fmt.Errorf("exit code %d: it was %s, and after recovery %s", code, now, again)
					}
					return nil
				}()
				if err != nil {
					if bad++; bad <= 5 {
						t.Logf("%s at %s #%d: %v\n%s", sig, call, k, err, output)
					}
				}
			}
		}
	}
	t.Logf("%d signals, %d bad", points, bad)
	if bad > 0 || points < 100 {
		t.Errorf("%d of %d points are bad; at least 100 are expected", bad, points)
	}
}

// TestEnvironments applies under limits and oddities that a login can have: all
// old or all new, as the exit code says.
func TestEnvironments(t *testing.T) {
	lab.Need(t, "setpriv")
	b := newBench(t)
	for _, c := range []struct {
		name, script string
		codes        []int // -1: killed, or ended by the runtime
	}{
		{"no descriptors", `exec "$0" <&- >&- 2>&-`, []int{0}},
		{"stdout and stderr full", `exec "$0" >/dev/full 2>/dev/full`, []int{0}},
		{"closed pipe", `"$0" 2>&1 | :; exit ${PIPESTATUS[0]}`, []int{0}},
		{"16 files", `ulimit -n 16; exec "$0"`, []int{0}},
		{"5 files", `ulimit -n 5; exec "$0"`, []int{4, 6, -1, 2}},
		{"no file may grow", `ulimit -f 0; exec "$0"`, []int{6, -1, 2}},
		{"umask 000", `umask 000; exec "$0"`, []int{0}},
		{"umask 777", `umask 777; exec "$0"`, []int{0}},
		{"working directory is gone", `d=$(mktemp -d); cd "$d"; rmdir "$d"; exec "$0"`, []int{0}},
		{"no PATH", `PATH=; exec "$0"`, []int{0}},
		{"no HOME, dumb terminal", `unset HOME; TERM=dumb LANG=C exec "$0"`, []int{0}},
		{"nobody", `exec setpriv --reuid=65534 --clear-groups "$0"`, []int{6, 1, -1}},
		{"no capability", `exec setpriv --bounding-set=-all --inh-caps=-all "$0"`, []int{0, 4, 6}},
		{"/proc/sys is read-only", `exec unshare -m sh -c 'mount -o remount,bind,ro /proc/sys/net && exec "$0"' "$0"`, []int{4, 6}},
	} {
		b.reset()
		before := b.exe
		script := filepath.Join(t.TempDir(), "run")
		// The test's own directories are root's: nobody must come as far as the binary.
		if err := os.WriteFile(script, []byte("#!/bin/bash\nset -- "+before+"\n"+strings.ReplaceAll(c.script, `"$0"`, `"$1"`)+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(c.script, "sh -c") {
			text := "#!/bin/bash\n" + strings.Replace(c.script, `"$0"' "$0"`, `"$0"' `+before, 1) + "\n"
			if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		b.exe = script
		code, _, out := b.run("apply", nil)
		b.exe = before
		now := b.now()
		ok := false
		for _, want := range c.codes {
			ok = ok || code == want || want == -1 && code > 6
		}
		if !ok || code == 0 && now != "new" || (code == 4 || code == 6) && now != "old" {
			t.Errorf("%s: exit code %d, %s\n%s", c.name, code, now, out)
		}
		if err := afterKill(b, point{}, code, out); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		// What is in place is for everyone to read, whatever the umask was; what is the
		// program's own is not.
		if code == 0 {
			for file, mode := range map[string]os.FileMode{"etc/sysctl.d/99-zz-hostaudit.conf": 0o644, "var/lib/hostaudit": 0o700 | os.ModeDir} {
				if info, err := os.Stat(filepath.Join(b.root, file)); err != nil || info.Mode() != mode {
					t.Errorf("%s: %s has mode %v, %v", c.name, file, info.Mode(), err)
				}
			}
		}
	}
}
