package sysctl

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// askedTree is a small /proc/sys of plain files.
func askedTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range []string{"net/ipv4/tcp_max_orphans", "net/ipv4/tcp_max_tw_buckets", "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/all/forwarding",
		"net/ipv4/conf/eth0.1/rp_filter", "net/ipv4/conf/eth1/rp_filter", "kernel/pid_max"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(p)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, p), []byte("1\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestAskedKeys: what is asked for in any order is answered as the tree is, and
// when settled without it.
func TestAskedKeys(t *testing.T) {
	dir := askedTree(t)
	s := AskKeys(t.Context(), dir)
	globs := map[string][]string{
		// A look-up of a directory does not undo its listing (the differential test,
		// seed 1795822602804665315).
		"/proc/sys/*/*/*/*/rp_filter":    {"/proc/sys/net/ipv4/conf/all/rp_filter", "/proc/sys/net/ipv4/conf/eth0.1/rp_filter", "/proc/sys/net/ipv4/conf/eth1/rp_filter"},
		"/proc/sys/net/ipv4/tcp_max_*":   {"/proc/sys/net/ipv4/tcp_max_orphans", "/proc/sys/net/ipv4/tcp_max_tw_buckets"},
		"/proc/sys/net/ipv4/conf/eth?/*": {"/proc/sys/net/ipv4/conf/eth1/rp_filter"},
		"/proc/sys/net/ipv6/conf/*/*":    nil,
	}
	check := func(when string) {
		t.Helper()
		for pattern, want := range globs {
			budget := 1000
			if got := glob(pattern, globFlags{}, s, &budget); !slices.Equal(got, want) {
				t.Errorf("%s: %s: %q, want %q", when, pattern, got, want)
			}
		}
		for k, want := range map[Key]bool{"kernel.pid_max": true, "kernel.pid_min": false, "net.ipv4": false, "net.ipv4.conf.eth0/1.rp_filter": true,
			"net.ipv4.conf.eth9.rp_filter": false, Key("kernel." + strings.Repeat("x", 5000)): false, "kernel.a\x00b": false, "net.//.kernel.pid_max": false} {
			if got := s.Has(k); got != want {
				t.Errorf("%s: %.40q: %v, want %v", when, string(k), got, want)
			}
		}
	}
	check("asking")
	read, err := ReadValues(t.Context(), dir, append(s.interfaceKeys(), "net.ipv4.ip_forward"))
	if err != nil {
		t.Fatal(err)
	}
	if gaps := s.Settle(read); len(gaps) > 0 {
		t.Errorf("gaps %v", gaps)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	check("settled")
	if v := read["net.ipv4.ip_forward"]; v.State != Absent {
		t.Errorf("a setting of the catalogue that is not there: %+v", v)
	}
	if _, there := read["net.ipv4.conf.eth1.forwarding"]; there {
		t.Error("a setting that the interface lacks was kept")
	}
	if v := read["net.ipv4.conf.eth1.rp_filter"]; v.State != Present {
		t.Errorf("control: %+v", v)
	}
	if s.Has("net.ipv4.tcp_sack") {
		t.Error("a settled set found what was neither asked for nor read")
	}
}

// TestAskedKeysEnd: with the context the questions end.
func TestAskedKeysEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := AskKeys(ctx, askedTree(t))
	if !s.Has("kernel.pid_max") {
		t.Fatal("control: not found")
	}
	cancel()
	if s.Has("net.ipv4.tcp_max_orphans") || len(s.list("net/ipv4")) > 0 {
		t.Error("asked after the end")
	}
}
