package reach_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

var updateFlag = flag.Bool("update", false, "record anew in testdata/managers what the managers wrote and what the kernel answered")

// A scene is a host with the rules of one manager, and the packets that judge
// the model by them. What it saw is recorded in testdata/managers:
// NAME.snapshot, a capture, and NAME.answers, where a line holds what a client
// saw alike:
//
//	PROTO FROM IIF SEES: TO:PORT TO:PORT>DELIVERED:PORT …
//
// with IIF "lo" for the host's own. SEES and DELIVERED are as the kernel had it;
// without the latter what is connected is delivered where it was dialled, and
// "*" says that nobody watched. FROM holds a port where the probe named one. A
// "?" behind it: a reading of the host cannot tell.
type scene struct {
	name   string
	lab    *lab.Lab
	probes []lab.Probe
	// unsure are the rules that may leave an answer open; nil: none may.
	unsure *regexp.Regexp
	// foreign: the services are not this process's own, so that nobody here sees
	// what is delivered.
	foreign bool
}

// across makes a probe of each source to each address and port of its family.
func across(proto lab.Proto, via string, froms, tos []netip.Addr, ports ...uint16) (out []lab.Probe) {
	for _, from := range froms {
		for _, to := range tos {
			if from.Is4() != to.Is4() {
				continue
			}
			for _, port := range ports {
				p := dial(proto, from, to, port)
				p.Via = via
				out = append(out, p)
			}
		}
	}
	return out
}

// from makes probes start in another namespace than the client.
func from(n *lab.Namespace, probes []lab.Probe) []lab.Probe {
	for i := range probes {
		probes[i].In, probes[i].Via = n, ""
	}
	return probes
}

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// iif is the interface of the server that a probe comes in by.
func (s *scene) iif(p lab.Probe) string {
	if k := slices.Index(s.lab.Containers, p.In); p.In != nil && k >= 0 {
		return fmt.Sprintf("ctr%d", k)
	}
	return ""
}

// held is one probe, what the kernel made of it, and what the model says.
type held struct {
	outcome lab.Outcome
	answer  reach.Answer
	query   reach.Query
}

// wrong says how the model and the kernel differ, "" where they do not.
func (h *held) wrong(foreign bool) string {
	a, o := h.answer, h.outcome
	if a.ClientSees == reach.Depends {
		return ""
	}
	if foreign && string(a.ClientSees) != o.ClientSees.String() || !foreign && differs(a, o) {
		return disagreement{o.Probe, o.String(), a}.String()
	}
	if seen := o.Delivery; seen != nil && !foreign && !leadsTo(a, seen.Local.String()) {
		return fmt.Sprintf("%v: delivered to %v in %s, the model says %+v", o.Probe, seen.Local, seen.Namespace, a.Deliveries())
	}
	return ""
}

// leadsTo reports whether one of the sockets that the model names has the address.
func leadsTo(a reach.Answer, addr string) bool {
	return slices.ContainsFunc(a.Deliveries(), func(d reach.Delivered) bool {
		return netip.AddrPortFrom(netip.MustParseAddr(d.Address), d.Port).String() == addr
	})
}

// ask makes the probes and asks a reading of the server about each.
func (s *scene) ask(t testing.TB, probes []lab.Probe) []held {
	t.Helper()
	e := reach.New(hostWorld(t, s.lab.Server))
	var out []held
	for i, o := range s.lab.Probe(t, probes...) {
		h := held{outcome: o, query: question(s.lab, probes[i], s.iif(probes[i]), o.FromPort)}
		var err error
		if h.answer, err = e.Ask(h.query, reach.AnswerOnly); err != nil {
			t.Fatalf("%v: %v", probes[i], err)
		}
		out = append(out, h)
	}
	return out
}

// hold holds the model against the kernel, packet by packet. What disagrees is
// read and asked once more before it is believed.
func (s *scene) hold(t testing.TB) {
	t.Helper()
	all := s.ask(t, s.probes)
	var again []lab.Probe
	var places []int
	for i := range all {
		if all[i].wrong(s.foreign) != "" {
			again, places = append(again, s.probes[i]), append(places, i)
		}
	}
	if len(again) > 0 {
		for i, h := range s.ask(t, again) {
			all[places[i]] = h
		}
	}
	depends, sights := 0, map[lab.Sight]int{}
	for i := range all {
		h := &all[i]
		if w := h.wrong(s.foreign); w != "" {
			t.Errorf("%s: %s", s.name, w)
		}
		sights[h.outcome.ClientSees]++
		if h.answer.ClientSees == reach.Depends {
			depends++
			if open := s.undecided(h.answer); open != "" {
				t.Errorf("%s: %v: depends by %s", s.name, h.outcome.Probe, open)
			}
		}
	}
	t.Logf("%s: %d probes, %v, %d depends", s.name, len(all), sights, depends)
	if sights[lab.Connected] < 10 || len(all)-sights[lab.Connected] < 10 {
		t.Errorf("%s: nearly everything has one outcome, nothing is proven: %v", s.name, sights)
	}
	c := s.capture(t)
	s.replay(t, c, all)
	if *updateFlag && !t.Failed() {
		s.write(t, c, all)
	}
}

// undecided is a condition that no rule of the scene accounts for.
func (s *scene) undecided(a reach.Answer) string {
	for _, c := range a.Conditions {
		if s.unsure == nil || !s.unsure.MatchString(c.Text+" "+c.TurnsOn) {
			return fmt.Sprintf("%+v", c)
		}
	}
	if len(a.Conditions) == 0 {
		return "nothing"
	}
	return ""
}

// labName is how the laboratory names its namespaces in /run/netns.
var labName = regexp.MustCompile(`^lab\d+-\d+-`)

// capture records the server, without what says something about this machine or
// is not asked for.
func (s *scene) capture(t testing.TB) *collect.Capture {
	t.Helper()
	var c *collect.Capture
	var err error
	s.lab.Server.Do(func() { _, c, err = collect.Record(t.Context(), collect.Options{Quick: true, NoCensus: true}) })
	if err != nil {
		t.Fatalf("record %s: %v", s.name, err)
	}
	snapshot, err := c.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	behind := map[uint64]bool{c.Taken[0].ID: true}
	for range snapshot.World.Namespaces {
		for _, ns := range snapshot.World.Namespaces {
			for _, p := range ns.Peers {
				behind[p.Namespace] = behind[p.Namespace] || behind[ns.ID]
			}
		}
	}
	for i := len(c.Taken) - 1; i >= 0; i-- {
		c.Taken[i].Name = listeners.HostText(labName.ReplaceAllString(string(c.Taken[i].Name), ""))
		c.Taken[i].Later = nil
		if tape := c.Taken[i].Listeners; tape != nil {
			tape.Kernel, _, _ = strings.Cut(tape.Kernel, "-")
		}
		if !behind[c.Taken[i].ID] {
			c.Taken = slices.Delete(c.Taken, i, i+1)
		}
	}
	c.Owners, c.Files, c.Sysctls, c.Keys, c.Timings, c.Gaps, c.SockStat, c.Conntrack, c.Memory = nil, nil, nil, nil, nil, nil, nil, nil, 0
	c.Meta.Kernel, _, _ = strings.Cut(c.Meta.Kernel, "-")
	c.Meta.Host, c.Meta.BootID, c.Meta.Uptime, c.Meta.Root, c.Meta.Tool = "host", "", 0, "", ""
	return c
}

// replay asks what was recorded, as it is written to a file, the same: it
// answers as the live reading did.
func (s *scene) replay(t testing.TB, c *collect.Capture, all []held) {
	t.Helper()
	var file bytes.Buffer
	if err := collect.Save(&file, c); err != nil {
		t.Fatal(err)
	}
	read, err := collect.Load(&file)
	if err != nil {
		t.Fatal(err)
	}
	e := reach.New(&read.World)
	for i := range all {
		a, err := e.Ask(all[i].query, reach.AnswerOnly)
		if err != nil {
			t.Fatal(err)
		}
		if a.Words() != all[i].answer.Words() {
			t.Errorf("%s: %v: a saved snapshot says %s, the live reading %s", s.name, all[i].outcome.Probe, a.Words(), all[i].answer.Words())
		}
	}
}

func recorded(name, suffix string) string { return filepath.Join("testdata/managers", name+suffix) }

// write records a scene.
func (s *scene) write(t testing.TB, c *collect.Capture, all []held) {
	t.Helper()
	var file bytes.Buffer
	if err := collect.Save(&file, c); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recorded(s.name, ".snapshot"), file.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	var order []string
	lines := map[string][]string{}
	for i := range all {
		h, q := &all[i], all[i].query
		q.FromPort = h.outcome.Probe.FromPort
		head := fmt.Sprintf("%v %v %s %v:", h.outcome.Probe.Proto, source(q), cmp.Or(q.Iif, "lo"), h.outcome.ClientSees)
		to := netip.AddrPortFrom(q.To, q.Port)
		word := to.String()
		switch d := h.outcome.Delivery; {
		case s.foreign && h.outcome.ClientSees == lab.Connected:
			word += ">*"
		case d != nil && (d.Local != to || h.outcome.ClientSees != lab.Connected):
			word += ">" + d.Local.String()
		case d == nil && h.outcome.ClientSees == lab.Connected:
			word += ">nothing"
		}
		if h.answer.ClientSees == reach.Depends {
			word += "?"
		}
		if lines[head] == nil {
			order = append(order, head)
		}
		lines[head] = append(lines[head], word)
	}
	var text strings.Builder
	for _, head := range order {
		text.WriteString(head + " " + strings.Join(lines[head], " ") + "\n")
	}
	if err := os.WriteFile(recorded(s.name, ".answers"), []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// source is the client of a query, with its port where it has one.
func source(q reach.Query) string {
	if q.FromPort == 0 {
		return q.From.String()
	}
	return netip.AddrPortFrom(q.From, q.FromPort).String()
}

// seen is one packet of an .answers file.
type seen struct {
	query   reach.Query
	sees    reach.Sees
	to      string // "" where nothing was delivered, "*" where nobody watched
	depends bool
}

// readAnswers reads an .answers file.
func readAnswers(text string) (out []seen, err error) {
	for line := range strings.Lines(text) {
		head, tail, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		f := strings.Fields(head)
		if !ok || len(f) != 4 {
			return nil, fmt.Errorf("%q is no line of answers", line)
		}
		s := seen{sees: reach.Sees(f[3])}
		if s.query.Proto = firewall.TCP; f[0] == "udp" {
			s.query.Proto = firewall.UDP
		}
		if s.query.From, err = netip.ParseAddr(f[1]); err != nil {
			a, err := netip.ParseAddrPort(f[1])
			if err != nil {
				return nil, err
			}
			s.query.From, s.query.FromPort = a.Addr(), a.Port()
		}
		if f[2] != "lo" {
			s.query.Iif = f[2]
		}
		for _, word := range strings.Fields(tail) {
			one := s
			word, one.depends = strings.CutSuffix(word, "?")
			word, to, away := strings.Cut(word, ">")
			a, err := netip.ParseAddrPort(word)
			if err != nil {
				return nil, err
			}
			one.query.To, one.query.Port = a.Addr(), a.Port()
			if one.to = to; !away && s.sees == reach.Connected {
				one.to = word
			}
			if to == "nothing" {
				one.to = ""
			}
			out = append(out, one)
		}
	}
	return out, nil
}

// judge says what is wrong about an answer, "" for nothing.
func (s *seen) judge(a reach.Answer) string {
	q := fmt.Sprintf("%+v: the kernel says %s, to %q", s.query, s.sees, s.to)
	switch d := a.Deliveries(); {
	case s.depends && a.ClientSees == reach.Depends:
		return ""
	case a.ClientSees != s.sees:
		return fmt.Sprintf("%s; the model says %s", q, a.Words())
	case s.to == "*":
	case a.ClientSees == reach.Connected && a.AfterConnect != reach.Depends && a.Through() != (s.to != ""):
		return fmt.Sprintf("%s; the model says %s, to %+v", q, a.Words(), d)
	case s.to != "" && !leadsTo(a, s.to):
		return fmt.Sprintf("%s; the model says to %+v", q, d)
	}
	return ""
}

// TestManagersRecorded asks about the hosts that were recorded while ufw,
// firewalld, fail2ban, Docker and chains like kube-proxy's ruled them, on any
// machine and without any of them: the answers are those that the kernel gave.
func TestManagersRecorded(t *testing.T) {
	files, err := filepath.Glob(recorded("*", ".snapshot"))
	if err != nil || len(files) < 13 {
		t.Fatalf("%d recorded hosts (%v)", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".snapshot")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s, err := collect.Load(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			answers, err := os.ReadFile(recorded(name, ".answers"))
			if err != nil {
				t.Fatal(err)
			}
			all, err := readAnswers(string(answers))
			if err != nil {
				t.Fatal(err)
			}
			e, open := reach.New(&s.World), 0
			for i := range all {
				a, err := e.Ask(all[i].query, reach.AnswerOnly)
				if err != nil {
					t.Fatalf("%+v: %v", all[i].query, err)
				}
				if a.ClientSees == reach.Depends {
					open++
				}
				if w := all[i].judge(a); w != "" {
					t.Error(w)
				}
			}
			if len(all) < 50 || open*5 > len(all) {
				t.Errorf("%d asked, %d depends", len(all), open)
			}
			t.Logf("%d answers, %d depends", len(all), open)
		})
	}
}

// TestRecordedExposure: nothing keeps anybody from a UDP service on every address,
// and sources that no client has leave nothing open.
func TestRecordedExposure(t *testing.T) {
	data, err := os.ReadFile(recorded("kube-nftables", ".snapshot"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := collect.Load(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	e, seen := reach.New(&s.World), 0
	for i := range s.World.Namespaces[0].Listeners.Listeners {
		l := &s.World.Namespaces[0].Listeners.Listeners[i]
		if l.Proto != listeners.UDP || l.Local.Addr().IsLoopback() {
			continue
		}
		seen++
		if x := e.Listener(l); x.Who != reach.Everyone {
			t.Errorf("%s: %s", l.Subject(), x.Who)
		}
	}
	if seen < 5 {
		t.Errorf("%d UDP services", seen)
	}
}
