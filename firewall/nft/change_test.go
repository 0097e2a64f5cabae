package nft

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// TestChangingRuleset: while another program reloads the ruleset without pause,
// a reading is either whole — one of the two rulesets, never a mixture — or
// ErrChanged.
func TestChangingRuleset(t *testing.T) {
	var files [2]string
	for i := range files {
		var b strings.Builder
		b.WriteString("flush ruleset\ntable inet t {\n")
		for c := range 3 {
			fmt.Fprintf(&b, "chain c%d {\n", c)
			for range 40 + 15*i {
				fmt.Fprintf(&b, "ip saddr { 10.0.0.1, 10.0.0.2 } tcp dport %d accept\n", 1000+i)
			}
			b.WriteString("}\n")
		}
		b.WriteString("}\n")
		files[i] = b.String()
	}
	whileReloaded(t, files)
}

// TestChangingTables: the same with tables, chains and sets that come and go, as a
// firewall manager makes them at boot: rules of a table that was not listed are no
// malformed message.
func TestChangingTables(t *testing.T) {
	var files [2]string
	for i := range files {
		var b strings.Builder
		b.WriteString("flush ruleset\n")
		for n := range 4 {
			fmt.Fprintf(&b, "table %s %c%d {\nset s%d { type ipv4_addr; elements = { 10.0.0.%d } }\nchain d%d {\n", []string{"ip", "inet"}[n%2], 'a'+i, n, i, n, i)
			for range 30 {
				fmt.Fprintf(&b, "ip saddr @s%d tcp dport %d accept\n", i, 1000+i)
			}
			b.WriteString("}\n}\n")
		}
		files[i] = b.String()
	}
	whileReloaded(t, files)
}

// whileReloaded reads while another program loads one of the two rulesets and the
// other in turn.
func whileReloaded(t *testing.T, files [2]string) {
	t.Helper()
	needTools(t, "nft")
	inNetns(t)
	load(t, files[0])
	want := map[string]bool{}
	for _, f := range files {
		load(t, f)
		want[shape(read(t, Options{}))] = true
	}
	if len(want) != 2 {
		t.Fatal("the two rulesets look the same")
	}
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ns)
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			done <- -1
			return
		}
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				done <- n
				return
			default:
			}
			cmd := exec.Command("nft", "-f", "-")
			cmd.Stdin = strings.NewReader(files[n%2])
			if cmd.Run() != nil {
				done <- -1
				return
			}
		}
	}()
	src, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	whole, changed := 0, 0
	end := time.Now().Add(3 * time.Second)
	for time.Now().Before(end) {
		rs, err := Read(context.Background(), src, Options{Attempts: 2})
		switch {
		case errors.Is(err, ErrChanged):
			changed++
		case err != nil:
			t.Error(err)
		case !want[shape(rs)]:
			t.Errorf("a torn ruleset: %s", shape(rs))
		default:
			whole++
		}
	}
	close(stop)
	reloads := <-done
	t.Logf("%d reloads, %d readings whole, %d given up", reloads, whole, changed)
	if reloads < 2 || whole+changed == 0 {
		t.Error("nothing was tried")
	}
}

// shape sums a ruleset up, so that a mixture of two looks like neither.
func shape(rs *fw.Ruleset) string {
	out := ""
	for _, tab := range rs.Tables {
		for _, c := range tab.Chains {
			kinds := map[string]int{}
			for _, r := range c.Rules {
				kinds[showRule(r)]++
			}
			out += fmt.Sprintf("%s %v; ", c.Name, kinds)
		}
		elems := map[string]int{}
		for _, s := range tab.Sets {
			elems[showElements(s)]++
		}
		out += fmt.Sprint(elems)
	}
	return out
}
