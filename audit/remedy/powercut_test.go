package remedy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/sysctl"
)

// disk is a file system of its own in a file, whose content at any instant is what
// has reached the "disk" by then.
type disk struct {
	t                 testing.TB
	base, image, snap string
	at                string
}

func newDisk(t testing.TB) *disk {
	t.Helper()
	lab.Need(t, "mkfs.ext4", "mount", "umount")
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=200m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	d := &disk{t, filepath.Join(dir, "base"), filepath.Join(dir, "image"), filepath.Join(dir, "snap"), filepath.Join(dir, "at")}
	for _, p := range []string{d.at} {
		if err := os.Mkdir(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.run("truncate", "-s", "8M", d.base)
	d.run("mkfs.ext4", "-qF", d.base)
	return d
}

func (d *disk) run(argv ...string) {
	d.t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		if argv[0] == "mount" && os.Getenv("CI") != "true" {
			d.t.Skipf("NOT RUN, no loop device can be mounted here: %v: %s", err, out)
		}
		d.t.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

// mount mounts an image; nothing is written back by itself for five minutes.
func (d *disk) mount(image string) { d.run("mount", "-o", "loop,commit=300", image, d.at) }
func (d *disk) umount()            { d.run("umount", d.at) }

func (d *disk) copy(from, to string) { d.run("cp", "--sparse=never", from, to) }

// TestPowerCut runs beside no other test: a system that goes down syncs all disks. It
// cuts the power at calls of an apply: everything that was not synced
// is gone. After the reboot and the recovery the files are all old or all new, new
// exactly where the change was committed, and exit code 0 means that they last.
func TestPowerCut(t *testing.T) {
	points, bad, committed := powerCuts(t, newBench(t), false, false)
	t.Logf("the power was cut at %d points, %d bad, %d after the commit", points, bad, committed)
	if bad > 0 || points < 80 || committed == 0 {
		t.Errorf("%d of %d points are bad, %d were committed; at least 80 points and one commit are expected", bad, points, committed)
	}
}

// TestPowerCutInRollback cuts the power at calls of a rollback of a change that was
// kept. The recovery ends it: all is old, or, where the rollback had not been announced
// on disk yet, all is new.
func TestPowerCutInRollback(t *testing.T) {
	points, bad, left := powerCuts(t, newBench(t), false, true)
	t.Logf("the power was cut at %d points, %d bad, new after %d of them", points, bad, left)
	if bad > 0 || points < 40 || left == 0 || left == points {
		t.Errorf("%d of %d points are bad, after %d it is new", bad, points, left)
	}
}

// powerMutants are defects that only a lost cache shows.
var powerMutants = []struct{ name, file, old, new string }{
	{"no sync of the file", "dir.go", "\tif err := unix.Fsync(fd); err != nil {\n\t\treturn fail(err)\n\t}\n\topen = false", "\topen = false"},
	{"no sync of any directory", "dir.go", "if err := unix.Fsync(d.fd); err != nil {\n\t\treturn &fs.PathError{Op: \"sync\"", "if err := error(nil); err != nil {\n\t\treturn &fs.PathError{Op: \"sync\""},
}

// TestPowerMutants: the cuts must see what is left out.
func TestPowerMutants(t *testing.T) {
	for _, m := range powerMutants {
		t.Run(m.name, func(t *testing.T) {
			b := newBench(t)
			b.exe = mutant(t, m.file, m.old, m.new)
			if points, bad, _ := powerCuts(t, b, true, false); bad == 0 {
				t.Errorf("none of %d points caught it", points)
			}
		})
	}
}

// powerCuts cuts the power at every point of an apply, or of the rollback of one that
// was kept (back), and says of the first bad ones why; one is enough where a mutant is
// to be caught.
func powerCuts(t *testing.T, b *bench, one, back bool) (points, bad, committed int) {
	d := newDisk(t)
	b.root = filepath.Join(d.at, "remedy-test")
	d.mount(d.base)
	b.reset()
	what, a, portRange := "apply", oldA, oldB
	if back {
		if code, _, out := b.run("apply", nil); code != 0 {
			t.Fatalf("apply: %d\n%s", code, out)
		}
		what, a, portRange = "rollback", newA, newB
	}
	d.umount()
	cut := func(p *point) bool {
		d.copy(d.base, d.image)
		b.ns.Sysctl(t, string(keyA), a, string(keyB), portRange)
		d.mount(d.image)
		code, hit, output := b.run(what, p)
		d.copy(d.image, d.snap) // what has reached the disk at this instant
		d.umount()
		if p != nil && !hit {
			return false
		}
		points++
		b.ns.Sysctl(t, string(keyA), a, string(keyB), portRange) // a reboot
		d.mount(d.snap)
		defer d.umount()
		err := func() error {
			// Nothing torn, before anything is recovered.
			if data, err := os.ReadFile(filepath.Join(b.root, sysctl.DropInPath)); err == nil && string(data) != string(b.steps[2].File.After) {
				return fmt.Errorf("a torn drop-in: %q", data)
			}
			if code, _, out := b.run("recover", nil); code != 0 {
				return fmt.Errorf("recover ended with %d: %s", code, out)
			}
			if l := b.leftovers(); l != "" {
				return fmt.Errorf("left behind: %s", l)
			}
			dropIn, err1 := os.ReadFile(filepath.Join(b.root, sysctl.DropInPath))
			modules, err2 := os.ReadFile(filepath.Join(b.root, sysctl.ModulesDropInPath))
			isNew := err1 == nil && string(dropIn) == string(b.steps[2].File.After) && string(modules) == "# new\n"
			isOld := os.IsNotExist(err1) && err2 == nil && string(modules) == "# old\n"
			if !isNew && !isOld {
				return fmt.Errorf("the files are neither old nor new: %q %q", dropIn, modules)
			}
			entries, err := filepath.Glob(filepath.Join(b.root, "var/lib/hostaudit/history/*.json"))
			if err != nil {
				return err
			}
			kept := false
			for _, e := range entries {
				text, err := os.ReadFile(e)
				if err != nil {
					return err
				}
				kept = kept || strings.Contains(string(text), `"state":"committed"`)
			}
			if kept != isNew {
				return fmt.Errorf("committed: %v, new on disk: %v", kept, isNew)
			}
			if code == 0 && isNew == back {
				return fmt.Errorf("exit code 0, and it did not last")
			}
			if isNew {
				committed++
			}
			return nil
		}()
		if err != nil {
			if bad++; bad <= 5 {
				t.Logf("%v: %v\n%s", p, err, output)
			}
		}
		return true
	}
	for _, call := range []string{"write", "fsync", "renameat", "unlinkat", "mkdirat", "openat", "fchmod"} {
		for k := 1; cut(&point{call: call, k: k}); k++ {
			if one && bad > 0 {
				return points, bad, committed
			}
		}
	}
	cut(nil) // after the end: committed changes last
	return points, bad, committed
}
