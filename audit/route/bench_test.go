package route

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/hostaudit/hostaudit/firewall"
)

// big is a table with n routes of a full Internet table's shape over eight ways.
func big(tb testing.TB, n int) *Table {
	tb.Helper()
	t := decode(tb, load(tb))
	lo := t.LinkByName("v0")
	var links []*Link
	for i := range 8 {
		l := *lo
		fl := *lo.Link
		l.Link = &fl
		l.Index, l.Name = 1000+i, fmt.Sprintf("up%d", i)
		links = append(links, &l)
		t.Links = append(t.Links, &l)
		t.byIndex[l.Index], t.byName[l.Name] = &l, &l
	}
	routes := []*Route{{Family: firewall.IPv4, Table: tableMain, Type: typeUnicast, Dst: netip.MustParsePrefix("0.0.0.0/0"), Hops: []Hop{{Link: links[0], Weight: 1}}}}
	for i := range n {
		v := uint32(i) * 2654435761 // spread
		bits := 18 + i%7
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(v>>24)%100 + 20, byte(v >> 16), byte(v >> 8), 0}), bits).Masked()
		routes = append(routes, &Route{Family: firewall.IPv4, Table: tableMain, Type: typeUnicast, Dst: p, Hops: []Hop{{Link: links[i%8], Weight: 1}}})
	}
	t.v4.rules = defaultRules(firewall.IPv4)
	t.v4.customRules, t.suppresses = yes, false
	t.v4.fibs[tableMain] = newFIB(firewall.IPv4, tableMain, routes)
	return t
}

func BenchmarkBuild100k(b *testing.B) {
	t := big(b, 100_000)
	routes := t.v4.fibs[tableMain].routes
	for b.Loop() {
		newFIB(firewall.IPv4, tableMain, routes)
	}
}

func BenchmarkOutputFirst100k(b *testing.B) {
	t := big(b, 100_000)
	for b.Loop() {
		clear(t.v4.fibs[tableMain].paint.all)
		t.Output(Key{Family: firewall.IPv4}, firewall.All(4), firewall.Value{}, nil)
	}
}

func BenchmarkOutputAll100k(b *testing.B) {
	t := big(b, 100_000)
	src := t.Addrs[0].value()
	t.Output(Key{Family: firewall.IPv4}, firewall.All(4), src, nil)
	for b.Loop() {
		t.Output(Key{Family: firewall.IPv4}, firewall.All(4), src, nil)
	}
}

func BenchmarkOutputOne100k(b *testing.B) {
	t := big(b, 100_000)
	for i := 0; b.Loop(); i++ {
		t.Output(Key{Family: firewall.IPv4}, firewall.Single(firewall.Num(uint64(i)*7919%(1<<32))), firewall.Value{}, nil)
	}
}

func BenchmarkInputStrict100k(b *testing.B) {
	t := big(b, 100_000)
	in := t.LinkByName("up0")
	in.conf4 = make([]int32, 40)
	in.conf4[conf4RPFilter] = 1
	var dst firewall.Value
	for _, a := range t.Addrs {
		if a.Family == firewall.IPv4 && !a.Local.IsLoopback() {
			dst = a.value()
		}
	}
	parts := t.Input(Key{Family: firewall.IPv4}, firewall.All(4), dst, in.Link)
	if len(parts) > 40 {
		b.Fatalf("%d parts", len(parts))
	}
	for b.Loop() {
		t.Input(Key{Family: firewall.IPv4}, firewall.All(4), dst, in.Link)
	}
}
