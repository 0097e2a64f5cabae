package sysctl

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCaptureHostile: links that leave the root, pipes, devices, directories,
// loops and huge files neither block nor escape.
func TestCaptureHostile(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d := filepath.Join(root, "etc/sysctl.d")
	must(os.MkdirAll(filepath.Join(d, "dir.conf"), 0o755))
	must(os.WriteFile(filepath.Join(outside, "secret.conf"), []byte("net.core.somaxconn = 1"), 0o644))
	must(os.Symlink(filepath.Join(outside, "secret.conf"), filepath.Join(d, "absolute.conf")))
	must(os.Symlink("../../../../../../../../.."+outside+"/secret.conf", filepath.Join(d, "relative.conf")))
	must(os.Symlink("/etc/passwd", filepath.Join(d, "passwd.conf")))
	must(os.Symlink("loop.conf", filepath.Join(d, "loop.conf")))
	must(syscall.Mkfifo(filepath.Join(d, "pipe.conf"), 0o644))
	big, err := os.Create(filepath.Join(d, "big.conf"))
	must(err)
	must(big.Truncate(1 << 30))
	big.Close()
	must(os.WriteFile(filepath.Join(d, "good.conf"), []byte("net.core.somaxconn = 2"), 0o644))

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tree, err := CaptureFiles(ctx, root)
	must(err)
	for _, name := range []string{"absolute", "relative", "passwd"} {
		if data, err := tree.ReadFile("/etc/sysctl.d/" + name + ".conf"); !errors.Is(err, fs.ErrNotExist) || len(data) > 0 {
			t.Errorf("%s: %q %v", name, data, err)
		}
	}
	if _, err := tree.ReadFile("/etc/sysctl.d/loop.conf"); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("loop: %v", err)
	}
	if _, err := tree.ReadFile("/etc/sysctl.d/pipe.conf"); !errors.Is(err, errWouldBlock) {
		t.Errorf("pipe: %v", err)
	}
	if data, err := tree.ReadFile("/etc/sysctl.d/big.conf"); !errors.Is(err, errTooBig) || len(data) != maxFileBytes {
		t.Errorf("big: %d %v", len(data), err)
	}
	if data, err := tree.ReadFile("/etc/sysctl.d/good.conf"); err != nil || string(data) != "net.core.somaxconn = 2" {
		t.Errorf("good: %q %v", data, err)
	}
	if _, err := tree.ReadFile("/etc/never/asked"); !errors.Is(err, errNotCaptured) && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("not asked: %v", err)
	}
	// The answer is a gap, not a value.
	keys := NewKeySet([]Key{keySomaxconn})
	for _, l := range Loaders() {
		if o := Simulate(l, tree, keys); len(o.Gaps) < 2 {
			t.Errorf("%s: gaps %v", l, o.Gaps)
		}
	}
	if !strings.Contains(strings.Join(gapTexts(tree.Gaps()), "\n"), "big.conf") {
		t.Errorf("gaps %v", tree.Gaps())
	}
}

func gapTexts(gaps []Gap) []string {
	var out []string
	for _, g := range gaps {
		out = append(out, g.String())
	}
	return out
}

// TestCaptureKeepsNoSecrets: of files that may hold passwords only the lines
// that matter are kept.
func TestCaptureKeepsNoSecrets(t *testing.T) {
	root := t.TempDir()
	put := func(p, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, p)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, p), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("etc/docker/daemon.json", `{"ip-forward": false, "proxies": {"http-proxy": "http://u:SECRET@h"}, "iptables": "SECRET"}`)
	put("etc/rc.local", "#!/bin/sh\nPASSWORD=SECRET x\nsysctl -w net.core.somaxconn=5\n")
	put("etc/profile", "export TOKEN=SECRET\nulimit -n 5\n")
	put("etc/systemd/network/wg.network", "[Match]\nName=wg0\n[WireGuard]\nPrivateKey=SECRET\n[Network]\nIPForward=yes\n")
	tree, err := CaptureFiles(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	for p, n := range tree.Nodes {
		if strings.Contains(string(n.Data), "SECRET") {
			t.Errorf("%s: %s", p, n.Data)
		}
	}
	b := DetectBoot(tree)
	found := map[string]string{}
	for _, o := range b.Overrides {
		found[o.Who+" "+string(o.Key)] = o.Place.String() + " " + o.Value
	}
	for k, want := range map[string]string{
		"rc.local net.core.somaxconn":          "/etc/rc.local:3 5",
		"systemd-networkd net.ipv4.ip_forward": "/etc/systemd/network/wg.network:6 ",
	} {
		if found[k] != want {
			t.Errorf("%s: %q in %v", k, found[k], found)
		}
	}
}

// TestReadValues reads from a made-up /proc/sys.
func TestReadValues(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "net/core"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "net/core/somaxconn"), []byte("4096\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "net/core/huge"), make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	v, err := ReadValues(t.Context(), dir, []Key{keySomaxconn, "net.core.nothing", "net.core", "net.core.huge", "net./.secret"})
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[Key]Presence{keySomaxconn: Present, "net.core.nothing": Absent, "net.core": Failed, "net.core.huge": Failed} {
		if v[k].State != want {
			t.Errorf("%s: %+v", k, v[k])
		}
	}
	if n, ok := v.Int(keySomaxconn); !ok || n != 4096 {
		t.Errorf("somaxconn %d %v", n, ok)
	}
	if len(v.Gaps()) < 2 {
		t.Errorf("gaps %v", v.Gaps())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ReadValues(ctx, dir, []Key{keySomaxconn}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestListKeys compares the listing with what a plain walk finds.
func TestListKeys(t *testing.T) {
	keys, _, err := ListKeys(t.Context(), ProcSys)
	if err != nil {
		t.Fatal(err)
	}
	set := NewKeySet(keys)
	n := 0
	err = filepath.WalkDir(ProcSys+"/net", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		if k := KeyFromPath(p); !set.Has(k) {
			t.Errorf("%s was not listed", k)
		}
		return nil
	})
	if err != nil || n < 100 {
		t.Errorf("control: %d keys, %v", n, err)
	}
}

// TestThroughProc: a link through /proc leads elsewhere for every process that
// follows it: what a loader would find there is a gap and not "nothing".
func TestThroughProc(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"etc/sysctl.d", "proc/7"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for p, target := range map[string]string{"proc/self": "7", "etc/sysctl.d/x.conf": "/proc/self/cwd/y", "etc/sysctl.d/z.conf": "/nowhere"} {
		if err := os.Symlink(target, filepath.Join(root, p)); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := CaptureFiles(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range Loaders() {
		o := Simulate(l, tree, NewKeySet(nil))
		if len(o.Gaps) != 1 || !strings.Contains(o.Gaps[0].What, "x.conf") {
			t.Errorf("%s: %v", l, o.Gaps)
		}
	}
	if g := tree.Gaps(); len(g) != 1 || g[0].What != "read /proc/self" {
		t.Errorf("%v", g)
	}
}

// TestManyProblems: a file of something else does not fill the memory, and how much
// is wrong with it is said.
func TestManyProblems(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc/sysctl.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/sysctl.d/x.conf"), []byte(strings.Repeat("xx\n", 100_000)), 0o644); err != nil {
		t.Fatal(err)
	}
	tree, err := CaptureFiles(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range Loaders() {
		p := Simulate(l, tree, NewKeySet(nil)).Problems
		if len(p) != maxProblems+1 || !strings.Contains(p[maxProblems].Text, "and 95903 more problems") {
			t.Errorf("%s: %d problems, the last is %+v", l, len(p), p[len(p)-1])
		}
	}
}
