// Package packaging holds the tests of the packages as they are built.
package packaging

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// need skips a test where a program is missing, loudly; in CI it fails.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing(t, p+" is not installed (packaging/dev/install-test-deps installs it)")
		}
	}
}

func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip("SKIPPED: " + why)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "needs root")
	}
}

// output runs a program in the root of the sources and fails the test with it.
func output(t *testing.T, environ []string, name string, args ...string) string {
	t.Helper()
	out, err := try(environ, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func try(environ []string, name string, args ...string) (string, error) {
	c := exec.Command(name, args...)
	c.Dir = ".."
	c.Env = append(os.Environ(), environ...)
	out, err := c.CombinedOutput()
	return string(out), err
}

var buildDir string // of built, made and removed by TestMain

// built builds the packages for this machine once, into a directory of its own.
var built = sync.OnceValues(func() (string, error) {
	dir := buildDir
	out, err := try([]string{"ARCHES=" + runtime.GOARCH, "SOURCE_DATE_EPOCH=1764000000"}, "packaging/dev/packages", dir)
	if err != nil {
		return "", &buildError{out, err}
	}
	return dir, nil
})

type buildError struct {
	out string
	err error
}

func (e *buildError) Error() string { return e.err.Error() + "\n" + e.out }

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "hostaudit-packages-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// packages returns the directory with the packages, the deb and the rpm.
func packages(t *testing.T) (dir, deb, rpm string) {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	one := func(pattern string) string {
		m, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(m) != 1 {
			t.Fatalf("%s: %v %v", pattern, m, err)
		}
		return m[0]
	}
	return dir, one("*.deb"), one("*.rpm")
}

// TestReproducible builds a second time, elsewhere, with another umask, home and
// time zone: the same bytes.
func TestReproducible(t *testing.T) {
	t.Parallel()
	_, deb, rpm := packages(t)
	other := t.TempDir()
	src := filepath.Join(other, "elsewhere")
	copySources(t, src)
	// What the build caches stays in a home of its own, but for what it compiled.
	cache := strings.TrimSpace(output(t, nil, "go", "env", "GOCACHE"))
	modules := strings.TrimSpace(output(t, nil, "go", "env", "GOMODCACHE"))
	c := exec.Command("sh", "-c", "umask 077; exec packaging/dev/packages "+other)
	c.Dir = src
	c.Env = append(os.Environ(), "ARCHES="+runtime.GOARCH, "SOURCE_DATE_EPOCH=1764000000", "TZ=Asia/Tokyo", "HOME="+other, "GOCACHE="+cache, "GOMODCACHE="+modules)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, first := range []string{deb, rpm} {
		if a, b := sum(t, first), sum(t, filepath.Join(other, filepath.Base(first))); a != b {
			t.Errorf("%s differs in a second build", filepath.Base(first))
		}
	}
	// Negative control: another date is seen.
	changed := filepath.Join(other, "changed")
	output(t, []string{"ARCHES=" + runtime.GOARCH, "SOURCE_DATE_EPOCH=1764000001"}, "packaging/dev/packages", changed)
	if sum(t, deb) == sum(t, filepath.Join(changed, filepath.Base(deb))) {
		t.Error("another date gives the same package: this test compares nothing")
	}
}

func copySources(t *testing.T, to string) {
	t.Helper()
	if err := os.Mkdir(to, 0o755); err != nil {
		t.Fatal(err)
	}
	output(t, nil, "sh", "-c", "tar -c --exclude=./dist --exclude=./.git . | tar -x -C "+to)
}

func sum(t *testing.T, file string) [sha256.Size]byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

func TestLint(t *testing.T) {
	t.Parallel()
	dir, deb, rpm := packages(t)
	t.Run("lintian", func(t *testing.T) {
		need(t, "lintian")
		out := output(t, nil, "lintian", "--profile", "debian", "--allow-root", "--fail-on", "error,warning,info,pedantic", "-EIL", "+pedantic", deb)
		if regexp.MustCompile(`(?m)^[EWIP]:`).MatchString(out) {
			t.Error(out)
		}
	})
	t.Run("rpmlint", func(t *testing.T) {
		need(t, "rpmlint")
		out := output(t, nil, "rpmlint", "-c", "packaging/rpmlint.toml", rpm)
		if !strings.Contains(out, "1 packages and 0 specfiles checked; 0 errors, 0 warnings") {
			t.Error(out)
		}
	})
	t.Run("shellcheck", func(t *testing.T) {
		need(t, "shellcheck")
		for pattern, least := range map[string]int{"scripts/deb-*": 3, "scripts/rpm-*": 3, "nagios/*": 1, "testdata/*/*.sh": 4, "testdata/*.sh": 1} {
			files, _ := filepath.Glob(pattern)
			if len(files) < least {
				t.Fatalf("%s: %v", pattern, files)
			}
			for _, f := range files {
				shell := "sh"
				if strings.HasPrefix(f, "testdata/") {
					shell = "bash"
				}
				output(t, nil, "shellcheck", "-s", shell, "--severity=warning", "packaging/"+f)
			}
		}
	})
	t.Run("manual", func(t *testing.T) {
		need(t, "mandoc")
		pages, _ := filepath.Glob(dir + "/build/man/*")
		if len(pages) < 10 {
			t.Fatalf("only %d pages", len(pages))
		}
		if out := output(t, nil, "mandoc", append([]string{"-T", "lint", "-W", "warning"}, pages...)...); out != "" {
			t.Error(out)
		}
	})
	t.Run("completion", func(t *testing.T) {
		for _, c := range [][2]string{{"bash", "hostaudit"}, {"zsh", "_hostaudit"}, {"fish", "hostaudit.fish"}} {
			need(t, c[0])
			output(t, nil, c[0], "-n", dir+"/build/completion/"+c[1])
		}
		// Not only the grammar: bash asks the program, and gets its commands.
		binary := dir + "/build/" + runtime.GOARCH
		out := output(t, []string{"PATH=" + binary + ":" + os.Getenv("PATH")}, "bash", "-c", `
			_get_comp_words_by_ref() { cur=sn; prev=hostaudit; words=(hostaudit sn); cword=1; }
			compopt() { :; }
			. "$0" && COMP_LINE="hostaudit sn" COMP_POINT=12 __start_hostaudit && echo "${COMPREPLY[@]}"`, dir+"/build/completion/hostaudit")
		if !strings.HasPrefix(out, "snapshot") {
			t.Errorf("completing sn gives %q", out)
		}
	})
}

// TestUnits: the units are sound, and the exposure of the daily scan is 2.5 or
// below.
func TestUnits(t *testing.T) {
	need(t, "systemd-analyze")
	dir, _, _ := packages(t)
	// verify looks for the program of each unit.
	units := t.TempDir()
	var verify []string
	for _, name := range []string{"hostaudit-scan.service", "hostaudit-scan.timer", "hostaudit-recover.service"} {
		b, err := os.ReadFile("systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.ReplaceAll(b, []byte("=/usr/sbin/hostaudit"), []byte("="+dir+"/build/"+runtime.GOARCH+"/hostaudit"))
		b = regexp.MustCompile(`(?m)^Documentation=.*\n`).ReplaceAll(b, nil) // not installed here
		if err := os.WriteFile(filepath.Join(units, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
		verify = append(verify, filepath.Join(units, name))
	}
	output(t, nil, "systemd-analyze", append([]string{"verify", "--man=no"}, verify...)...)
	// The setting that a newer systemd knows and this one does not is a warning only.
	output(t, nil, "systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=25", "packaging/systemd/hostaudit-scan.service")
	// Control: the recovery unit is not hardened, and fails the same threshold.
	if _, err := try(nil, "systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=25", "packaging/systemd/hostaudit-recover.service"); err == nil {
		t.Error("the unit without hardening passes: this test compares nothing")
	}
}

// TestNagiosPlugin: the plugin's exit code is the state that its line names.
func TestNagiosPlugin(t *testing.T) {
	dir, _, _ := packages(t)
	environ := []string{"PATH=" + dir + "/build/" + runtime.GOARCH + ":" + os.Getenv("PATH")}
	const services = "HOSTAUDIT_SERVICES=[{name: api, port: 8080, audience: everyone}]"
	const accept = "HOSTAUDIT_ACCEPT=[{id: sysctl.tw-buckets-lowered, subject: net.ipv4.tcp_max_tw_buckets, reason: weighed}]"
	for _, c := range []struct {
		environ, arg string
		code         int
		line         string
	}{
		{accept, "--snapshot=cmd/hostaudit/testdata/snapshot/policy.snapshot", 0, "HOSTAUDIT OK - "},
		{"", "--snapshot=cmd/hostaudit/testdata/snapshot/policy.snapshot", 1, "HOSTAUDIT WARNING - "},
		{"", "--snapshot=cmd/hostaudit/testdata/snapshot/scenario.snapshot", 1, "HOSTAUDIT WARNING - "},
		{services, "--snapshot=cmd/hostaudit/testdata/snapshot/scenario.snapshot", 2, "HOSTAUDIT CRITICAL - "},
		{"", "--snapshot=/dev/null", 3, "HOSTAUDIT UNKNOWN - hostaudit: "},
		{"", "--no-such-flag", 3, "HOSTAUDIT UNKNOWN - hostaudit: "},
	} {
		out, err := try(append(environ, c.environ), "packaging/nagios/check_hostaudit", c.arg)
		code := 0
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			code, err = exit.ExitCode(), nil
		}
		if err != nil || code != c.code || !strings.HasPrefix(out, c.line) || strings.Count(out, "\n") != 1 {
			t.Errorf("%v: %d, %v: %q", c, code, err, out)
		}
	}
}

// TestSBOM: the SBOM names exactly the modules that the binary names.
func TestSBOM(t *testing.T) {
	dir, _, _ := packages(t)
	arch := dir + "/build/" + runtime.GOARCH
	var want []string
	for l := range strings.SplitSeq(output(t, nil, "go", "version", "-m", arch+"/hostaudit"), "\n") {
		if f := strings.Fields(l); len(f) == 4 && f[0] == "dep" {
			want = append(want, f[1]+"@"+f[2])
		}
	}
	if len(want) < 5 {
		t.Fatalf("the binary names %v", want)
	}
	sbom, err := os.ReadFile(arch + "/sbom.cdx.json")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range regexp.MustCompile(`"purl": "pkg:golang/([^"]+)"`).FindAllStringSubmatch(string(sbom), -1) {
		if !strings.HasPrefix(m[1], "std@") && !strings.HasPrefix(m[1], "github.com/hostaudit/") {
			got = append(got, strings.ReplaceAll(m[1], "%2B", "+"))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Errorf("the binary names\n%s\nthe SBOM\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
	notices := output(t, nil, "gzip", "-dc", arch+"/third-party-notices.txt.gz")
	for _, w := range want {
		if !strings.Contains(notices, "\n"+strings.Replace(w, "@", " ", 1)+": ") {
			t.Errorf("no licence of %s", w)
		}
	}
}
