package ipset

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
)

// BenchmarkRead reads a set of 100,000 networks; `ipset save` over the same is
// the measure.
func BenchmarkRead(b *testing.B) {
	lab.Need(b, "ipset")
	n := lab.New(b, lab.Topology{}).Server
	var text strings.Builder
	text.WriteString("create big hash:net maxelem 200000\n")
	for i := range 100_000 {
		fmt.Fprintf(&text, "add big %d.%d.%d.0/24\n", 1+i>>16, i>>8&255, i&255)
	}
	n.Load(b, lab.IPSet, text.String())
	k := open(b, n)
	b.Run("hostaudit", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s, err := Read(b.Context(), k)
			if err != nil || s.ByName("big").N != 100_000 {
				b.Fatal(s, err)
			}
		}
	})
	b.Run("ipset save", func(b *testing.B) {
		for b.Loop() {
			n.Run(b, "ipset", "save")
		}
	})
	b.Run("match", func(b *testing.B) {
		s, err := Read(b.Context(), k)
		if err != nil {
			b.Fatal(err)
		}
		m := firewall.IPSetMatch{Set: s.ByName("big"), Src: []bool{true}}
		c := &firewall.Class{Remote: firewall.All(4), Ports: firewall.All(2), State: firewall.First(firewall.IPv4, firewall.TCP, firewall.Num(1), 22)}
		one := *c
		one.Remote = firewall.Single(firewall.Num(0x01020304))
		env := &firewall.Env{}
		for b.Loop() {
			m.Split(&one, env)
		}
	})
}
