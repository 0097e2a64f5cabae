package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/nft"
	"github.com/hostaudit/hostaudit/firewall/xtables"
)

func measureRules(st *stage) error {
	rules := st.scaled(50_000)
	if err := loadLegacy(legacyRules(rules)); err != nil {
		return err
	}
	if err := st.legacyRead(rules); err != nil {
		return err
	}
	if err := flush(); err != nil {
		return err
	}
	if err := loadNFT(nftRules(rules, "")); err != nil {
		return err
	}
	if err := st.nftRead(rules); err != nil {
		return err
	}
	runtime.GC()
	if err := st.partitions(rules); err != nil {
		return err
	}
	runtime.GC()
	var errs []error
	for _, s := range []struct {
		id, text string
		rules    int
	}{
		{"scan-chain", nftRules(rules, ""), rules},
		{"scan-chains-1000", nftChains(rules, st.scaled(1000)), rules + st.scaled(1000)},
		{"scan-chains-5000", nftChains(rules, st.scaled(5000)), rules + st.scaled(5000)},
		{"scan-set-100k", nftSet(st.scaled(100_000)), 1},
		{"scan-set-1m", nftSet(st.scaled(1_000_000)), 1},
	} {
		err := loadNFT(s.text)
		if err == nil {
			err = st.sees(50, s.rules, 0)
		}
		if err != nil {
			st.fail(s.id, err)
			errs = append(errs, err)
			continue
		}
		errs = append(errs, st.compare(s.id, program(st.scan()), program(pipeline...)))
	}
	return errors.Join(append(errs, st.batch())...)
}

// legacyRead compares reading and decoding with iptables-legacy-save.
func (st *stage) legacyRead(want int) error {
	ctx := context.Background()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return st.compare("read-legacy", inside(func() error {
		k, err := xtables.Open()
		if err != nil {
			return err
		}
		defer k.Close()
		tables, err := xtables.Read(ctx, k, nil)
		return errors.Join(err, counted(tables, want))
	}), program([]string{"iptables-legacy-save"}))
}

func counted(tables []*firewall.Table, want int) error {
	n := 0
	for _, t := range tables {
		for _, c := range t.Chains {
			n += len(c.Rules)
		}
	}
	if n != want {
		return fmt.Errorf("%d rules read, %d were made", n, want)
	}
	return nil
}

// asked is a source that notes what it is asked.
type asked struct {
	*nft.Conn
	dumps []nft.Request
}

func (a *asked) Dump(ctx context.Context, req nft.Request) iter.Seq2[[]byte, error] {
	a.dumps = append(a.dumps, req)
	return a.Conn.Dump(ctx, req)
}

// nftRead compares reading with receiving the same dumps and looking at nothing.
func (st *stage) nftRead(want int) error {
	ctx := context.Background()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	conn, err := nft.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	var dumps []nft.Request
	read := func() error {
		src := &asked{Conn: conn}
		rs, err := nft.Read(ctx, src, nft.Options{})
		if err != nil {
			return err
		}
		dumps = src.dumps
		return counted(rs.Tables, want)
	}
	if err := read(); err != nil {
		return err
	}
	return st.compare("read-nft", inside(read), inside(func() error {
		got := 0
		for _, req := range dumps {
			for _, err := range conn.Dump(ctx, req) {
				if err != nil {
					break // a dump of something that this kernel lacks
				}
				got++
			}
		}
		if got < want {
			return fmt.Errorf("%d messages received for %d rules", got, want)
		}
		return nil
	}))
}

// partitions compares the exact sources of 1,000 listeners behind one chain of
// rules with subtraction, listener by listener: of a few of the listeners,
// multiplied.
func (st *stage) partitions(n int) error {
	const ports = 1000
	listeners := st.scaled(ports)
	some := max(1, listeners/250)
	rs := chainOf(n, ports)
	rules := rs.Tables[0].Chains[0].Rules
	slow := inside(func() error {
		for port := range some {
			left := firewall.All(4)
			for _, r := range rules {
				if m, ok := r.Stmts[2].(*firewall.Match); ok && !m.In.Contains(firewall.Num(uint64(firstListener+port))) {
					continue
				}
				if src, ok := r.Stmts[0].(*firewall.Match); ok {
					left = left.Minus(src.In)
				}
			}
		}
		return nil
	})
	// What a ruleset learns is kept with it, so every turn has a new one.
	next := rs
	return st.compare("partitions", func() (cost, error) {
		c, err := inside(func() error {
			for port := range listeners {
				class := firewall.Class{
					Remote: firewall.All(4), Ports: firewall.Span(firewall.Num(1024), firewall.Num(65535)),
					State: firewall.First(firewall.IPv4, firewall.TCP, firewall.Num(1), uint16(firstListener+port)),
				}
				next.Walk(firewall.Input, []firewall.Class{class}, &firewall.Env{})
			}
			return nil
		})()
		next = chainOf(n, ports)
		runtime.GC()
		return c, err
	}, func() (cost, error) {
		c, err := slow()
		times := time.Duration(listeners / some)
		return cost{Wall: c.Wall * times, CPU: c.CPU * times}, err
	})
}

// chainOf is one chain of n rules, one in five for any port.
func chainOf(n, ports int) *firewall.Ruleset {
	g := rand.New(rand.NewPCG(1, 2))
	t := &firewall.Table{Backend: firewall.NFTables, Family: firewall.TableIP, Name: "t"}
	ch := &firewall.Chain{Name: "input", Table: t, Base: &firewall.Base{Hook: firewall.Input, Policy: firewall.Drop}}
	t.Chains = []*firewall.Chain{ch}
	for i := range n {
		lo := uint64(g.Uint32()) &^ 0xff
		r := &firewall.Rule{Chain: ch, Number: i + 1, Stmts: []firewall.Stmt{
			&firewall.Match{Operand: firewall.Plain(firewall.FieldSrcAddr, 4), In: firewall.Span(firewall.Num(lo), firewall.Num(lo+uint64(g.IntN(256))))},
			&firewall.Match{Operand: firewall.Plain(firewall.FieldL4Proto, 1), In: firewall.Single(firewall.Num(6))},
		}}
		if i%5 != 0 {
			r.Stmts = append(r.Stmts, &firewall.Match{Operand: firewall.Plain(firewall.FieldDstPort, 2), In: firewall.Single(firewall.Num(uint64(firstListener + g.IntN(ports))))})
		}
		r.Stmts = append(r.Stmts, &firewall.Verdict{Kind: []firewall.VerdictKind{firewall.Accept, firewall.Drop}[g.IntN(2)]})
		ch.Rules = append(ch.Rules, r)
	}
	return &firewall.Ruleset{Tables: []*firewall.Table{t}}
}

// batch asks 10,000 questions about a host with 1,000 rules.
func (st *stage) batch() error {
	rules, queries := st.scaled(1000), st.scaled(10_000)
	if err := loadNFT(nftRules(rules, "")); err != nil {
		return err
	}
	var b bytes.Buffer
	g := rand.New(rand.NewPCG(3, 4))
	var networks []string
	eachRule(rules, func(_ int, network string, _ int) { networks = append(networks, strings.TrimSuffix(network, "/24")) })
	for i := range queries {
		from := fmt.Sprintf("%d.%d.%d.%d", 11+g.IntN(100), g.IntN(256), g.IntN(256), g.IntN(256))
		if i%2 == 0 { // one that a rule names
			from = networks[g.IntN(len(networks))]
		}
		fmt.Fprintf(&b, `{"id": "q%d", "proto": "tcp", "from": %q, "to": "192.0.2.10", "port": %d}`+"\n", i, from, firstListener+g.IntN(50))
	}
	file, err := os.CreateTemp("", "bench-*.ndjson")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if _, err := file.Write(b.Bytes()); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	argv := []string{st.Hostaudit, "reach", "--batch", file.Name()}
	out, err := output(argv...)
	if err != nil {
		st.fail("batch", err)
		return err
	}
	sees := map[string]int{}
	for line := range bytes.Lines(out) {
		var a struct {
			Sees string `json:"client_sees"`
		}
		if err := json.Unmarshal(line, &a); err != nil {
			return err
		}
		sees[a.Sees]++
	}
	if sees["connected"]+sees["timeout"] != queries || sees["connected"] == 0 || sees["timeout"] == 0 {
		err := fmt.Errorf("%d questions were answered with %v", queries, sees)
		st.fail("batch", err)
		return err
	}
	return st.compare("batch", program(argv), nil)
}

func measureWhole(st *stage) error {
	var errs []error
	for _, c := range []struct {
		id     string
		rules  int
		legacy bool
	}{{"whole-legacy-10k", 10_000, true}, {"whole-nft-10k", 10_000, false}, {"whole-legacy-50k", 50_000, true}, {"whole-nft-50k", 50_000, false}} {
		n := st.scaled(c.rules)
		err := flush()
		if err == nil && c.legacy {
			err = loadLegacy(legacyRules(n))
		} else if err == nil {
			err = loadNFT(nftRules(n, ""))
		}
		if err == nil {
			err = st.sees(st.scaled(1000), n, 0)
		}
		if err != nil {
			st.fail(c.id, err)
			errs = append(errs, err)
			continue
		}
		errs = append(errs, st.compare(c.id, program([]string{st.Hostaudit, "scan", "--format", "json"}), nil))
	}
	return errors.Join(errs...)
}

// measureLynis runs the audit once: it takes minutes, and the ratio is far from
// its ceiling.
func measureLynis(st *stage) error {
	lynis, err := exec.LookPath("lynis")
	if err != nil {
		st.fail("lynis", err)
		return nil
	}
	ours, err := st.turns(program([]string{st.Hostaudit, "scan"}))
	if err != nil {
		return err
	}
	theirs, err := program([]string{lynis, "audit", "system", "--quick", "--no-colors", "--quiet"})()
	if err != nil {
		return err
	}
	st.results = append(st.results, result{Gate: "lynis", Ours: ours[0], Theirs: theirs})
	return nil
}
