package main

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/hostaudit/hostaudit/cmd/hostaudit/hugepage"
)

// TestStart holds what our packages do before main: the program is started for
// every short command, and by systemd's timers.
func TestStart(t *testing.T) {
	const most = 70 << 10 // of the catalogue of sysctls, the largest
	cmd := exec.Command(os.Args[0], "-test.run", "^$")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// init PACKAGE @0.3 ms, 0.01 ms clock, 1024 bytes, 12 allocs
	seen := 0
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 9 || f[0] != "init" || !strings.HasPrefix(f[1], "github.com/hostaudit/hostaudit/") {
			continue
		}
		seen++
		n, err := strconv.Atoi(f[7])
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if n > most {
			t.Errorf("%s takes %d bytes before main, more than %d: make it when it is needed (sync.OnceValue)", f[1], n, most)
		}
	}
	if seen == 0 {
		t.Errorf("no package of ours in\n%s", out)
	}
}

// TestHugePages: the first megabytes of the heap are marked (VmFlags hg of
// proc_pid_smaps(5)), and what is made afterwards lies in them.
func TestHugePages(t *testing.T) {
	if os.Getenv("HUGE_PAGES_HERE") == "" {
		if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal("this kernel has no transparent huge pages")
			}
			t.Skip("SKIPPED: this kernel has no transparent huge pages")
		}
		cmd := exec.Command(os.Args[0], "-test.run", "^TestHugePages$", "-test.v")
		cmd.Env = append(os.Environ(), "HUGE_PAGES_HERE=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	kept := make([][]byte, 0, 1<<10)
	for range cap(kept) {
		kept = append(kept, make([]byte, 8<<10))
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	var lo, hi, marked uintptr
	in := 0
	for line := range strings.Lines(string(smaps)) {
		if from, to, ok := strings.Cut(strings.Fields(line)[0], "-"); ok {
			a, err1 := strconv.ParseUint(from, 16, 64)
			b, err2 := strconv.ParseUint(to, 16, 64)
			if err1 == nil && err2 == nil {
				lo, hi = uintptr(a), uintptr(b)
			}
			continue
		}
		if !strings.HasPrefix(line, "VmFlags:") || !strings.Contains(line, " hg") {
			continue
		}
		marked += hi - lo
		for _, b := range kept {
			if at := uintptr(unsafe.Pointer(&b[0])); lo <= at && at < hi {
				in++
			}
		}
	}
	if marked < 2*hugepage.Roomy-2*hugepage.Size || in < len(kept)*9/10 {
		t.Errorf("%d MB are marked, and %d of %d pieces lie in them", marked>>20, in, len(kept))
	}
}

func TestPace(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		live        uint64
		collections int
		want        int
	}{
		{0, 1, 100}, {10 * mb, 1, 100}, {17 * mb, 1, 100}, {20 * mb, 2, 70}, {30 * mb, 3, 13}, {33 * mb, 4, 8}, {34 * mb, 10, 8}, {38 * mb, 40, 8}, {40 * mb, 40, 50}, {1 << 40, 4, 50},
		{38 * mb, 41, 100}, {40 * mb, 200, 100},
	} {
		if got := pace(c.live, c.collections); got != c.want {
			t.Errorf("with %d MB in use after %d collections the heap grows by %d %%, want %d", c.live/mb, c.collections, got, c.want)
		}
	}
}
