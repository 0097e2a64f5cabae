package packaging

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// root is a file system that packages are installed into.
type root struct {
	t    *testing.T
	path string
}

// debian makes a Debian root: each test gets a copy.
func debian(t *testing.T) root {
	t.Helper()
	need(t, "dpkg", "strace")
	base := bootstrapped(t, "bookworm", "init-system-helpers")
	r := root{t, filepath.Join(t.TempDir(), "root")}
	output(t, nil, "cp", "-a", base, r.path)
	return r
}

// bootstrapped is a Debian root with more packages in it, made once and kept below
// the user's cache directory. Nobody writes to it.
func bootstrapped(t *testing.T, name, include string) string {
	t.Helper()
	needRoot(t)
	need(t, "debootstrap")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(cache, "hostaudit-test", name)
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil {
		t.Fatal(err)
	}
	// Tests that run side by side want the same one: the first makes it.
	lock, err := os.OpenFile(base+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(base); errors.Is(err, fs.ErrNotExist) {
		half := fmt.Sprintf("%s.%d", base, os.Getpid())
		if out, err := try(nil, "debootstrap", "--variant=minbase", "--include="+include, "bookworm", half); err != nil {
			os.RemoveAll(half)
			missing(t, "debootstrap could not make a root: "+out[max(0, len(out)-500):])
		}
		if err := os.Rename(half, base); err != nil {
			t.Fatal(err)
		}
	}
	return base
}

// try runs a program in the root, in a network and mount namespace of its own:
// nothing it does reaches the machine.
func (r root) try(args ...string) (string, error) {
	c := exec.Command("unshare", append([]string{"-nm", "chroot", r.path}, args...)...)
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	out, err := c.CombinedOutput()
	return string(out), err
}

func (r root) run(args ...string) string {
	r.t.Helper()
	out, err := r.try(args...)
	if err != nil {
		r.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (r root) has(name string) bool {
	_, err := os.Lstat(r.path + name)
	return err == nil
}

func (r root) add(name, text string) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Dir(r.path+name), 0o700); err != nil {
		r.t.Fatal(err)
	}
	f, err := os.OpenFile(r.path+name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.WriteString(text)
		f.Close()
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// files lists the root, but for what dpkg and rpm keep for themselves.
func (r root) files() []string {
	var all []string
	err := filepath.WalkDir(r.path, func(name string, e fs.DirEntry, err error) error {
		name = strings.TrimPrefix(name, r.path)
		if err == nil && !strings.HasPrefix(name, "/var/lib/dpkg/") && !strings.HasPrefix(name, "/var/log/") && !strings.HasPrefix(name, "/usr/lib/sysimage/") && !strings.HasPrefix(name, "/var/lib/rpm") {
			all = append(all, name)
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// laterVersion builds the packages under a later version, without compiling anew.
func laterVersion(t *testing.T) string {
	t.Helper()
	dir, _, _ := packages(t)
	later := t.TempDir()
	output(t, nil, "cp", "-a", dir+"/build", later+"/build")
	config, err := os.ReadFile(later + "/build/nfpm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config = []byte(strings.ReplaceAll(string(config), dir+"/", later+"/"))
	if err := os.WriteFile(later+"/build/nfpm.yaml", config, 0o644); err != nil {
		t.Fatal(err)
	}
	environ := []string{"VERSION=0.9.9", "BUILD=" + later + "/build", "ARCH=" + runtime.GOARCH, "SOURCE_DATE_EPOCH=1764000000"}
	for _, format := range []string{"deb", "rpm"} {
		output(t, environ, "go", "tool", "-modfile=packaging/dev/packages.mod", "nfpm", "package", "-f", later+"/build/nfpm.yaml", "-p", format, "-t", later+"/")
	}
	return later
}

// scans holds the installed program to its word: it starts, and reads.
func (r root) scans() {
	r.t.Helper()
	if out := r.run("/usr/sbin/hostaudit", "version"); !strings.HasPrefix(out, "hostaudit 0.") {
		r.t.Errorf("version: %s", out)
	}
	// With a /proc of its own processes, which nobody can write to.
	if err := os.MkdirAll(r.path+"/proc", 0o555); err != nil {
		r.t.Fatal(err)
	}
	c := exec.Command("unshare", "-nmpf", "sh", "-c", `mount -t proc -o ro proc "$0/proc" && exec chroot "$0" /usr/sbin/hostaudit scan --quick --format json`, r.path)
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}
	b, err := c.CombinedOutput()
	out := string(b)
	var exit *exec.ExitError
	// 1: findings. 3: something could not be read, and the report says so.
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1 && exit.ExitCode() != 3) || !strings.Contains(out, "hostaudit/scan/v1") {
		r.t.Errorf("scan: %v\n%s", err, out)
	}
}

const edited = "fail-on: warning\n"

const config = "/etc/hostaudit/hostaudit.yaml"

func (r root) keepsEdit() {
	r.t.Helper()
	b, err := os.ReadFile(r.path + config)
	if err != nil || !strings.HasSuffix(string(b), edited) {
		r.t.Errorf("the edited configuration is gone: %v", err)
	}
}

func copyTo(t *testing.T, r root, pattern, name string) {
	t.Helper()
	m, _ := filepath.Glob(pattern)
	if len(m) != 1 {
		t.Fatalf("%s: %v", pattern, m)
	}
	output(t, nil, "cp", m[0], r.path+name)
}

func TestDeb(t *testing.T) {
	t.Parallel()
	r := debian(t)
	dir, _, _ := packages(t)
	later := laterVersion(t)
	copyTo(t, r, dir+"/*.deb", "/x.deb")
	copyTo(t, r, later+"/*.deb", "/y.deb")
	before := r.files()

	r.run("dpkg", "-i", "/x.deb")
	if out := r.run("dpkg", "-V", "hostaudit"); out != "" {
		t.Errorf("verify: %s", out)
	}
	for _, link := range []string{"/etc/systemd/system/timers.target.wants/hostaudit-scan.timer", "/usr/lib/systemd/system/sysinit.target.wants/hostaudit-recover.service"} {
		if !r.has(link) {
			t.Errorf("%s is missing: not enabled", link)
		}
	}
	r.scans()

	r.add(config, edited)
	if out, _ := r.try("dpkg", "-V", "hostaudit"); !strings.Contains(out, "c "+config) || strings.Count(out, "\n") != 1 {
		t.Errorf("verify after the edit: %s", out)
	}
	r.run("dpkg", "-i", "/y.deb")
	r.keepsEdit()
	r.scans()

	r.add("/var/lib/hostaudit/journal", "x")
	if out, err := r.try("dpkg", "-r", "hostaudit"); err == nil || !r.has("/usr/sbin/hostaudit") {
		t.Errorf("removed while a change was pending: %s", out)
	}
	if err := os.Remove(r.path + "/var/lib/hostaudit/journal"); err != nil {
		t.Fatal(err)
	}
	r.run("dpkg", "--configure", "-a")
	r.run("dpkg", "-r", "hostaudit")
	r.keepsEdit()
	r.run("dpkg", "-P", "hostaudit")
	after := r.files()
	for _, f := range after {
		if !slices.Contains(before, f) {
			t.Errorf("left after purge: %s", f)
		}
	}
	for _, f := range before {
		if !slices.Contains(after, f) {
			t.Errorf("gone after purge: %s", f)
		}
	}
}

// TestDebKilled kills dpkg before its Kth rename while it unpacks; another
// installation always mends it.
func TestDebKilled(t *testing.T) {
	t.Parallel()
	r := debian(t)
	dir, _, _ := packages(t)
	copyTo(t, r, dir+"/*.deb", "/x.deb")
	const renames = "rename,renameat,renameat2"
	killed, half := 0, false
	for k := 1; ; k += 7 {
		_, err := try([]string{"LC_ALL=C.UTF-8"}, "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+renames,
			"-e", "inject="+renames+":signal=KILL:when="+strconv.Itoa(k), "unshare", "-nm", "chroot", r.path, "dpkg", "-i", "/x.deb")
		if err == nil {
			break
		}
		killed++
		if out, _ := r.try("dpkg", "--audit"); out != "" {
			half = true
		}
		r.run("dpkg", "-i", "/x.deb")
		if out := r.run("dpkg", "-V", "hostaudit"); out != "" {
			t.Errorf("killed before rename %d, installed again: %s", k, out)
		}
		r.run("dpkg", "-P", "hostaudit")
	}
	if killed < 3 || !half {
		t.Errorf("killed %d times, half installed %v: this test has not tested much", killed, half)
	}
	t.Logf("killed at %d points", killed)
}

func TestRPM(t *testing.T) {
	t.Parallel()
	needRoot(t)
	need(t, "rpm", "busybox")
	_, _, file := packages(t)
	later, _ := filepath.Glob(laterVersion(t) + "/*.rpm")
	r := root{t, t.TempDir()}
	r.forRPM()
	asked := func() string {
		b, _ := os.ReadFile(r.path + "/systemctl.log")
		os.Remove(r.path + "/systemctl.log")
		return string(b)
	}
	rpm := func(args ...string) string {
		t.Helper()
		return output(t, nil, "unshare", append([]string{"-nm", "rpm", "--root", r.path, "--nosignature", "--nodeps"}, args...)...)
	}
	rpm("-i", file)
	if out := rpm("-V", "hostaudit"); out != "" {
		t.Errorf("verify: %s", out)
	}
	if out := asked(); !strings.Contains(out, "preset hostaudit-scan.timer") {
		t.Errorf("installation asked systemctl for %q", out)
	}
	r.scans()
	r.add(config, edited)
	rpm("-U", later[0])
	r.keepsEdit()
	if out := asked(); strings.Contains(out, "disable") || strings.Contains(out, "preset") {
		t.Errorf("an upgrade asked systemctl for %q", out)
	}
	rpm("-U", "--oldpackage", file)
	rpm("-i", "--replacepkgs", file)
	r.keepsEdit()
	r.scans()
	r.add("/var/lib/hostaudit/journal", "x")
	if _, err := try(nil, "unshare", "-nm", "rpm", "--root", r.path, "--nodeps", "-e", "hostaudit"); err == nil || !r.has("/usr/sbin/hostaudit") {
		t.Error("removed while a change was pending")
	}
	if err := os.RemoveAll(r.path + "/var/lib/hostaudit"); err != nil {
		t.Fatal(err)
	}
	asked()
	rpm("-e", "hostaudit")
	if out := asked(); !strings.Contains(out, "disable --now hostaudit-scan.timer") {
		t.Errorf("removal asked systemctl for %q", out)
	}
	if b, err := os.ReadFile(r.path + config + ".rpmsave"); err != nil || !strings.HasSuffix(string(b), edited) {
		t.Errorf("the edited configuration was not kept: %v", err)
	}
	for _, f := range r.files() {
		if strings.Contains(f, "hostaudit") && !strings.HasPrefix(f, "/etc/hostaudit") {
			t.Errorf("left after removal: %s", f)
		}
	}
}

// TestRPMKilled kills rpm before its Kth rename while it unpacks; another
// installation always mends it.
func TestRPMKilled(t *testing.T) {
	t.Parallel()
	needRoot(t)
	need(t, "rpm", "busybox", "strace")
	_, _, file := packages(t)
	const renames = "rename,renameat,renameat2"
	killed, half := 0, false
	for k := 1; ; k += 7 {
		r := root{t, t.TempDir()}
		r.forRPM()
		_, err := try(nil, "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+renames, "-e", "inject="+renames+":signal=KILL:when="+strconv.Itoa(k),
			"unshare", "-nm", "rpm", "--root", r.path, "--nosignature", "--nodeps", "-i", file)
		if err == nil {
			break
		}
		killed++
		half = half || r.has("/usr/sbin/hostaudit") != r.has("/usr/share/man/man8/hostaudit.8.gz")
		rpm := func(args ...string) string {
			t.Helper()
			return output(t, nil, "unshare", append([]string{"-nm", "rpm", "--root", r.path, "--nosignature", "--nodeps"}, args...)...)
		}
		// rpm names its half-written files by the second of the installation, and
		// stumbles over its own of the same second.
		time.Sleep(1100 * time.Millisecond)
		rpm("-i", "--replacepkgs", "--replacefiles", file)
		if out := rpm("-V", "hostaudit"); out != "" {
			t.Errorf("killed before rename %d, installed again: %s", k, out)
		}
		if out := output(t, nil, "rpm", "--root", r.path, "-q", "hostaudit"); strings.Count(out, "hostaudit-") != 1 {
			t.Errorf("killed before rename %d, installed again: %s", k, out)
		}
		rpm("-e", "hostaudit")
		for _, f := range r.files() {
			// What rpm had begun to write when it was killed it leaves for good.
			if strings.Contains(f, "hostaudit") && !strings.Contains(f, ";") && !r.holdsLeftover(f) {
				t.Errorf("killed before rename %d, installed again, removed: left %s", k, f)
			}
		}
	}
	if killed < 3 || !half {
		t.Errorf("killed %d times, half installed %v: this test has not tested much", killed, half)
	}
	t.Logf("killed at %d points", killed)
}

// holdsLeftover says whether a directory still holds what rpm was killed over.
func (r root) holdsLeftover(dir string) bool {
	return slices.ContainsFunc(r.files(), func(f string) bool { return strings.HasPrefix(f, dir+"/") && strings.Contains(f, ";") })
}

// forRPM makes a root of its own for rpm: a shell, and in place of systemctl
// something that says what it was asked.
func (r root) forRPM() {
	r.t.Helper()
	for _, d := range []string{"/bin", "/dev", "/usr/bin", "/etc/systemd/system", "/usr/lib/systemd/system/sysinit.target.wants"} {
		if err := os.MkdirAll(r.path+d, 0o755); err != nil {
			r.t.Fatal(err)
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		r.t.Fatal(err)
	}
	output(r.t, nil, "cp", busybox, r.path+"/bin/sh")
	r.add("/dev/null", "")
	// In place of systemctl: says what it was asked.
	r.add("/usr/bin/systemctl", "#!/bin/sh\necho \"$*\" >>/systemctl.log\n")
	if err := os.Chmod(r.path+"/usr/bin/systemctl", 0o755); err != nil {
		r.t.Fatal(err)
	}
	output(r.t, nil, "rpm", "--root", r.path, "--initdb")
}
