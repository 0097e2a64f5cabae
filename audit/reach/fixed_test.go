package reach_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// A fixed case is a txtar archive. Its comment says what was wrong once, then
// `probe PROTO FROM TO VIA` lines (VIA is an interface of the server, or "local") and
// `! COMMAND` lines; a probe with "depends" behind it cannot be told. Each file is a ruleset, named by its loader.

// TestFixedCases asks the kernel and the model again about everything that the
// differential test ever found them to disagree about, and rows and single answers
// about what decides.
func TestFixedCases(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/differential/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no fixed cases (%v)", err)
	}
	b := newBench(t)
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			rs, probes, unsure := readCase(t, b, f)
			b.Server.Flush(t)
			b.reset(t)
			b.dirty = len(rs.commands) > 0
			if loaded := b.load(t, rs); len(loaded.tables) != len(rs.tables) {
				t.Fatalf("%d of %d rulesets were taken by the kernel (see -refused)", len(loaded.tables), len(rs.tables))
			}
			wrong, depends, asked := b.judge(t, rs, probes)
			for _, w := range wrong {
				t.Error(w)
			}
			b.rowsDecide(t, probes)
			if asked != len(probes) || depends != unsure {
				t.Errorf("%d of %d probes judged, %d depends", asked, len(probes), depends)
			}
		})
	}
}

// rowsDecide holds what the single answers of probes name against the rows that
// their clients stand in.
func (b *bench) rowsDecide(t *testing.T, probes []lab.Probe) {
	t.Helper()
	e := reach.New(readWorld(t, b.Server))
	for _, p := range probes {
		q := b.query(p, 0)
		a, err := e.Ask(q, reach.AnswerOnly)
		if err != nil {
			t.Fatal(err)
		}
		q.From, q.Iif = netip.Addr{}, a.Query.Iif
		rows := e.Partition(q)
		i := slices.IndexFunc(rows, func(r reach.Row) bool {
			return slices.ContainsFunc(r.From, func(n netip.Prefix) bool { return n.Contains(p.From) })
		})
		if i < 0 {
			t.Errorf("%v: the client stands in no row", p)
			continue
		}
		if err := sameDecider(a, rows[i]); err != nil {
			t.Errorf("%v: the row %s, the single answer %s: %v", p, rows[i].Words(), a.Words(), err)
		}
	}
}

func readCase(t *testing.T, b *bench, name string) (rs *ruleset, probes []lab.Probe, unsure int) {
	t.Helper()
	a, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	rs = &ruleset{}
	for _, line := range strings.Split(string(a.Comment), "\n") {
		f := strings.Fields(line)
		switch {
		case len(f) == 6 && f[5] == "depends":
			unsure++
			f = f[:5]
			fallthrough
		case len(f) == 5 && f[0] == "probe":
			p := lab.Probe{Proto: lab.TCP, From: netip.MustParseAddr(f[2]), To: netip.MustParseAddrPort(f[3]), Via: f[4]}
			if f[1] == "udp" {
				p.Proto = lab.UDP
			}
			if f[4] == "local" {
				p.Via, p.In = "", b.Server
			}
			probes = append(probes, p)
		case len(f) > 1 && f[0] == "!":
			rs.commands = append(rs.commands, f[1:])
		}
	}
	if len(probes) == 0 {
		t.Fatalf("%s holds no probe", name)
	}
	for _, f := range a.Files {
		rs.tables = append(rs.tables, &table{loader: f.Name, verbatim: string(f.Data)})
	}
	return rs, probes, unsure
}

// keep writes a disagreement as a fixed case.
func keep(t testing.TB, name string, rs *ruleset, p lab.Probe) {
	via := p.Via
	if p.In != nil {
		via = "local"
	}
	a := &txtar.Archive{}
	text := fmt.Sprintf("Found by the differential test.\nprobe %v %v %v %s\n", p.Proto, p.From, p.To, via)
	for _, c := range rs.commands {
		text += "! " + strings.Join(c, " ") + "\n"
	}
	a.Comment = []byte(text)
	for _, tb := range rs.tables {
		a.Files = append(a.Files, txtar.File{Name: tb.loader, Data: []byte(tb.text())})
	}
	if err := os.WriteFile(filepath.Join("testdata/differential", name+".txtar"), txtar.Format(a), 0o644); err != nil {
		t.Fatal(err)
	}
}
