package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/listeners"
)

// size is what listeners/load makes for a scene.
type size struct {
	timewait, established, listen, procs int
	// fixed scenes are as big at any scale.
	fixed bool
	// wildcard listeners stand on 0.0.0.0, so that anybody may reach them; the
	// others on 127.0.0.1.
	wildcard bool
}

func (z size) args(scale int) []string {
	if z.fixed {
		scale = 1
	}
	address := "127.0.0.1"
	if z.wildcard {
		address = "0.0.0.0"
	}
	n := func(v int) string { return strconv.Itoa(v / scale) }
	return []string{"-timewait", n(z.timewait), "-established", n(z.established), "-listen", n(z.listen), "-procs", n(z.procs), "-address", address}
}

// scene is one host: its size, and what is measured there.
type scene struct {
	name, title string
	size        size
	gates       []gate
	measure     func(*stage) error
}

// resultsVar names the file for the results, in the environment.
const resultsVar = "BENCH_RESULTS"

// stage is a scene at work.
type stage struct {
	settings
	results []result
	rewind  *os.File
	wound   time.Time
	// waiting is how many sockets in TIME_WAIT the scene is about.
	waiting int
}

// measureScene runs inside the namespace of the load generator.
func measureScene(s settings, name string) error {
	for _, sc := range scenes {
		if sc.name != name {
			continue
		}
		st := &stage{settings: s, rewind: os.NewFile(3, "requests"), wound: time.Now(), waiting: sc.size.timewait / s.Scale}
		err := st.prepare()
		if err == nil {
			err = sc.measure(st)
		}
		out, encodeErr := json.Marshal(st.results)
		if encodeErr != nil {
			return errors.Join(err, encodeErr)
		}
		return errors.Join(err, os.WriteFile(os.Getenv(resultsVar), out, 0o600))
	}
	return fmt.Errorf("no scene %q", name)
}

// prepare gives the namespace an interface with addresses and a way out, so that
// listeners have clients to be reached by, and directories of its own for the
// locks and logs of tools.
func (st *stage) prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	for _, dir := range []string{"/run", "/var/log"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount on %s: %w", dir, err)
		}
	}
	for _, argv := range [][]string{
		{"ip", "link", "add", "eth0", "type", "veth", "peer", "name", "cable"},
		{"ip", "link", "set", "cable", "up"},
		{"ip", "address", "add", "192.0.2.10/24", "dev", "eth0"},
		{"ip", "address", "add", "2001:db8::10/64", "dev", "eth0", "nodad"},
		{"ip", "link", "set", "eth0", "up"},
		{"ip", "route", "add", "default", "via", "192.0.2.1"},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", argv, err, out)
		}
	}
	return nil
}

// fresh keeps TIME_WAIT from ending: it lasts a minute.
func (st *stage) fresh() error {
	if st.waiting == 0 || time.Since(st.wound) < 20*time.Second {
		return nil
	}
	one := []byte{0}
	if _, err := st.rewind.Write(one); err != nil {
		return fmt.Errorf("wind up TIME_WAIT: %w", err)
	}
	if _, err := st.rewind.Read(one); err != nil {
		return fmt.Errorf("wind up TIME_WAIT: %w", err)
	}
	st.wound = time.Now()
	// A machine that is busy with other things winds them up too slowly.
	b, err := os.ReadFile("/proc/thread-self/net/sockstat")
	if err != nil {
		return err
	}
	var s listeners.SockStat
	if err := listeners.ParseSockStat(b, &s); err != nil {
		return err
	}
	if int(s.TCPTimeWait) < st.waiting*98/100 {
		return fmt.Errorf("%d of %d sockets in TIME_WAIT are left: this machine is too slow or too busy for this size", s.TCPTimeWait, st.waiting)
	}
	return nil
}

// side measures one side once.
type side = func() (cost, error)

// turns lets the sides of a comparison take turns and gives their medians. The
// first turn warms caches and does not count; who begins alternates.
func (st *stage) turns(sides ...side) ([]cost, error) {
	costs := make([][]cost, len(sides))
	for n := range st.Repeat + 1 {
		for i := range sides {
			at := i
			if n%2 != 0 {
				at = len(sides) - 1 - i
			}
			if err := st.fresh(); err != nil {
				return nil, err
			}
			c, err := sides[at]()
			if err != nil {
				return nil, err
			}
			if n > 0 {
				costs[at] = append(costs[at], c)
			}
		}
	}
	medians := make([]cost, len(sides))
	for i := range sides {
		medians[i] = median(costs[i])
	}
	return medians, nil
}

// compare measures a gate; theirs may be nil.
func (st *stage) compare(id string, ours, theirs side) error {
	sides := []side{ours}
	if theirs != nil {
		sides = append(sides, theirs)
	}
	c, err := st.turns(sides...)
	if err != nil {
		st.fail(id, err)
		return err
	}
	r := result{Gate: id, Ours: c[0]}
	if theirs != nil {
		r.Theirs = c[1]
	}
	st.results = append(st.results, r)
	return nil
}

// against measures one side for several gates at once, whose other sides these
// are.
func (st *stage) against(ours side, theirs map[string]side) error {
	ids := slices.Sorted(maps.Keys(theirs))
	sides := []side{ours}
	for _, id := range ids {
		sides = append(sides, theirs[id])
	}
	c, err := st.turns(sides...)
	for i, id := range ids {
		if err != nil {
			st.fail(id, err)
			continue
		}
		st.results = append(st.results, result{Gate: id, Ours: c[0], Theirs: c[i+1]})
	}
	return err
}

func (st *stage) fail(id string, err error) {
	st.results = append(st.results, result{Gate: id, Failed: err.Error()})
}

// scaled is a size at this run's scale.
func (st *stage) scaled(n int) int { return n / st.Scale }

// scan is the command line of a whole scan. The second of sampling is waited for
// on purpose and left out, but where it is part of the gate.
func (st *stage) scan(flags ...string) []string {
	return append([]string{st.Hostaudit, "scan", "--quick"}, flags...)
}

// pipeline is what an operator types instead.
var pipeline = [][]string{{"ss", "-tlnp"}, {"iptables-legacy-save"}, {"nft", "list", "ruleset"}, {"sysctl", "-a"}}

// sees holds the scan against what was made, before it is timed.
func (st *stage) sees(listeners, rules, sockets int) error {
	if err := st.fresh(); err != nil {
		return err
	}
	out, err := output(st.scan("--format", "json")...)
	if err != nil {
		return err
	}
	var r struct {
		Host      struct{ Rules int }
		Listeners []struct {
			Proto   string
			Process *struct{ PID int }
		}
		Ephemeral *struct{ Total int }
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return fmt.Errorf("read the report: %w", err)
	}
	owned := 0
	for _, l := range r.Listeners {
		if l.Proto == "tcp" && l.Process != nil {
			owned++
		}
	}
	switch {
	case owned != listeners:
		return fmt.Errorf("the report shows %d listeners with owners, %d were made", owned, listeners)
	case r.Host.Rules != rules:
		return fmt.Errorf("the report counts %d rules, %d were made", r.Host.Rules, rules)
	case r.Ephemeral == nil || r.Ephemeral.Total < sockets:
		return fmt.Errorf("the report counts fewer than %d connections: %+v", sockets, r.Ephemeral)
	}
	return nil
}
