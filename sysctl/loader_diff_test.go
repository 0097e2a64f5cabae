package sysctl

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestLoadersDifferential runs the real systemd-sysctl, `sysctl --system` and
// `sysctl -p` over generated layouts and compares what the kernel holds
// afterwards with what the simulation says. Every value is written in one line
// only, so equal values mean that the same line won.
func TestLoadersDifferential(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SYSCTL_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	n := 1000
	if s := os.Getenv("SYSCTL_TEST_LAYOUTS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	} else if testing.Short() {
		n = 100
	}
	t.Logf("seed %d", seed)
	for _, p := range []string{systemdProgram, procpsProgram} {
		if _, err := os.Stat(p); err != nil {
			missing(t, "real loader missing: %v", err)
		}
	}
	out := sandboxed(t, "loaders", fmt.Sprintf("SYSCTL_TEST_SEED=%d", seed), fmt.Sprintf("SYSCTL_TEST_LAYOUTS=%d", n))
	t.Log(strings.TrimSpace(out))
}

const (
	systemdProgram = "/lib/systemd/systemd-sysctl"
	procpsProgram  = "/usr/sbin/sysctl"
)

// runLoaderDifferential is the child's part.
func runLoaderDifferential(s *sandbox) error {
	seed, err := strconv.ParseUint(os.Getenv("SYSCTL_TEST_SEED"), 10, 64)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(os.Getenv("SYSCTL_TEST_LAYOUTS"))
	if err != nil {
		return err
	}
	for _, p := range []string{systemdProgram, procpsProgram} {
		if err := s.install(p); err != nil {
			return err
		}
	}
	if out, err := exec.Command("ip", "link", "add", "d0", "type", "veth", "peer", "name", "v.1").CombinedOutput(); err != nil {
		return fmt.Errorf("sandbox: ip link add: %w %s", err, out)
	}
	keyList, gaps, err := ListKeys(context.Background(), ProcSys)
	if err != nil || len(gaps) > 0 {
		return fmt.Errorf("list keys: %v %v", err, gaps)
	}
	keys := NewKeySet(keyList)
	for _, k := range watched {
		if !keys.Has(k) {
			return fmt.Errorf("sandbox: %s is not there", k)
		}
	}
	files := []string{"/etc/sysctl.conf", "/opt/other.conf", "/etc/sysctl.d/*.conf", "/opt/sysctl.d/{x,ab}.conf", "/nowhere.conf"}
	changed, writes, problems := 0, 0, 0
	different := 0
	for i := range n {
		l := &layout{rng: rand.New(rand.NewPCG(seed, uint64(i)))}
		if err := clearLayout(s.root); err != nil {
			return err
		}
		if err := l.build(s.root); err != nil {
			return fmt.Errorf("layout %d: %w", i, err)
		}
		given := make([]string, 1+l.rng.IntN(2))
		for i := range given {
			given[i] = files[l.rng.IntN(len(files))]
		}
		tree, err := CaptureFiles(context.Background(), s.root, given...)
		if err != nil {
			return err
		}
		if tree, err = roundTrip(tree); err != nil {
			return err
		}
		cases := []struct {
			argv []string
			o    *Outcome
		}{
			{[]string{systemdProgram}, Simulate(LoaderSystemd, tree, keys)},
			{[]string{procpsProgram, "--system"}, Simulate(LoaderProcps, tree, keys)},
			{append([]string{procpsProgram, "-p"}, given...), SimulateFiles(tree, keys, given...)},
			{[]string{procpsProgram, "-p"}, SimulateFiles(tree, keys)},
		}
		if err := askedAlike(tree, keys); err != nil {
			return fmt.Errorf("layout %d (seed %d): %w\n%s", i, seed, err, strings.Join(l.nodes, "\n"))
		}
		for _, c := range cases {
			if err := resetWatched(); err != nil {
				return err
			}
			out, err := s.run(c.argv...)
			if err != nil {
				return fmt.Errorf("%v: %w", c.argv, err)
			}
			got, err := ReadValues(context.Background(), ProcSys, watched)
			if err != nil {
				return err
			}
			if len(c.o.Gaps) > 0 {
				return fmt.Errorf("layout %d: gaps %v\n%s", i, c.o.Gaps, strings.Join(l.nodes, "\n"))
			}
			writes += len(c.o.Writes)
			problems += len(c.o.Problems)
			for _, k := range watched {
				want, by, known := c.o.InForce(k, baseline)
				if got[k].Text != baseline {
					changed++
				}
				if by == nil && got[k].Text == baseline {
					continue
				}
				if _, in := Find(k); in && !known || !ShapeInt.Equal(got[k].Text, want) {
					different++
					fmt.Printf("layout %d (seed %d): %v: %s is %q, simulated %q by %+v\n", i, seed, c.argv, k, got[k].Text, want, by)
					if different < 4 {
						fmt.Printf("%s\noutput:\n%s\n", strings.Join(l.nodes, "\n"), out)
					}
				}
			}
		}
	}
	// The positive control: a run in which nothing was written proves nothing.
	if changed < n || writes < n || problems == 0 {
		return fmt.Errorf("control: only %d values changed in %d layouts (%d writes, %d problems)", changed, n, writes, problems)
	}
	if different > 0 {
		return fmt.Errorf("%d differences in %d layouts, seed %d", different, n, seed)
	}
	fmt.Printf("%d layouts, 4 loader runs each, %d writes simulated, %d values changed by the loaders, %d problems seen, 0 differences\n", n, writes, changed, problems)
	return nil
}

// askedAlike holds a set that is asked for one key after the other against the whole
// list: what the loaders do, and what a report speaks of, while it asks and after.
func askedAlike(tree *Tree, whole *KeySet) error {
	asked := AskKeys(context.Background(), ProcSys)
	simulate := func(keys *KeySet) (out []*Outcome) {
		for _, l := range Loaders() {
			out = append(out, Simulate(l, tree, keys))
		}
		return out
	}
	want := simulate(whole)
	got := simulate(asked)
	if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Outcome{}, Problem{})); d != "" {
		return fmt.Errorf("asked while simulating: %s", d)
	}
	wanted := WantedKeys(whole, want...)
	values, err := ReadValues(context.Background(), ProcSys, WantedKeys(asked, got...))
	if err != nil {
		return err
	}
	if gaps := asked.Settle(values); len(gaps) > 0 {
		return fmt.Errorf("gaps %v", gaps)
	}
	if d := cmp.Diff(wanted, slices.Sorted(maps.Keys(values))); d != "" {
		return fmt.Errorf("keys that were read: %s", d)
	}
	got = simulate(asked)
	if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Outcome{}, Problem{})); d != "" {
		return fmt.Errorf("when settled: %s", d)
	}
	if d := cmp.Diff(wanted, WantedKeys(asked, got...)); d != "" {
		return fmt.Errorf("wanted when settled: %s", d)
	}
	for _, k := range wanted {
		if whole.Has(k) != asked.Has(k) {
			return fmt.Errorf("%s: in the whole list %v, asked %v", k, whole.Has(k), asked.Has(k))
		}
	}
	return nil
}

// baseline is what every watched key holds before a loader runs.
const baseline = "777"

func resetWatched() error {
	for _, k := range watched {
		if err := os.WriteFile(ProcSys+"/"+k.Path(), []byte(baseline), 0); err != nil {
			return fmt.Errorf("reset %s: %w", k, err)
		}
	}
	return nil
}

// roundTrip saves and loads the capture, as a snapshot does.
func roundTrip(t *Tree) (*Tree, error) {
	data, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	var back Tree
	return &back, json.Unmarshal(data, &back)
}
