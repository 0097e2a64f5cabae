package xtables_test

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/xtables"
)

// manyRules is a filter table of n rules like those of a block list.
func manyRules(n int) string {
	var b strings.Builder
	b.WriteString("*filter\n:INPUT ACCEPT [0:0]\n")
	for i := range n {
		fmt.Fprintf(&b, "-A INPUT -s 10.%d.%d.%d/32 -p tcp -m tcp --dport %d -j DROP\n", i>>16&255, i>>8&255, i&255, 1+i%1000)
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// BenchmarkRead reads and decodes 50,000 rules; BenchmarkSave is
// iptables-legacy-save over the same table. The gate is 0.6 of its time.
func BenchmarkRead(b *testing.B) {
	lab.Need(b, "iptables-legacy")
	n := lab.New(b, lab.Topology{}).Server
	n.Load(b, lab.IPTablesLegacy, manyRules(50_000))
	b.Run("hostaudit", func(b *testing.B) {
		b.ReportAllocs()
		n.Do(func() {
			k, err := xtables.Open()
			if err != nil {
				b.Error(err)
				return
			}
			defer k.Close()
			for b.Loop() {
				tables, err := xtables.Read(b.Context(), k, nil)
				if err != nil || count(tables) != 50_000 {
					b.Error(count(tables), err)
					return
				}
			}
		})
	})
	b.Run("getsockopt alone", func(b *testing.B) {
		n.Do(func() {
			k, err := xtables.Open()
			if err != nil {
				b.Error(err)
				return
			}
			defer k.Close()
			info, err := k.Info(b.Context(), firewall.TableIP, "filter")
			if err != nil {
				b.Error(err)
				return
			}
			for b.Loop() {
				if _, err := k.Entries(b.Context(), firewall.TableIP, "filter", int(binary.NativeEndian.Uint32(info[80:]))); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
	b.Run("iptables-legacy-save", func(b *testing.B) {
		for b.Loop() {
			if _, err := n.Exec(b.Context(), "", "iptables-legacy-save"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func count(tables []*firewall.Table) int {
	n := 0
	for _, t := range tables {
		for _, c := range t.Chains {
			n += len(c.Rules)
		}
	}
	return n
}

// TestRuleSize holds the memory that a simple rule takes once it is decoded.
func TestRuleSize(t *testing.T) {
	lab.Need(t, "iptables-legacy")
	n := lab.New(t, lab.Topology{}).Server
	const rules = 20_000
	n.Load(t, lab.IPTablesLegacy, manyRules(rules))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tables := readLegacy(t, n)
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := int(after.HeapAlloc-before.HeapAlloc) / count(tables)
	t.Logf("%d bytes a rule, %d of them the kernel's entry", per, 200)
	if per > 700 {
		t.Errorf("%d bytes a rule", per)
	}
	runtime.KeepAlive(tables)
}
