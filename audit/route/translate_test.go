package route

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
)

// translations writes down what MASQUERADE and REDIRECT make of a packet.
const translations = `
table inet tr {
	set m4 { type inet_service . ipv4_addr; flags dynamic; size 65535; }
	set m6 { type inet_service . ipv6_addr; flags dynamic; size 65535; }
	set r4 { type inet_service . ipv4_addr; flags dynamic; size 65535; }
	set r6 { type inet_service . ipv6_addr; flags dynamic; size 65535; }
	chain pre { type nat hook prerouting priority -100; udp dport 7003 redirect; }
	chain after {
		type filter hook prerouting priority -50;
		udp dport 7003 meta nfproto ipv4 add @r4 { udp sport . ip daddr }
		udp dport 7003 meta nfproto ipv6 add @r6 { udp sport . ip6 daddr }
	}
	chain post { type nat hook postrouting priority 100; udp dport 7000 masquerade; }
	chain last {
		type filter hook postrouting priority 200;
		udp dport 7000 meta nfproto ipv4 add @m4 { udp sport . ip saddr }
		udp dport 7000 meta nfproto ipv6 add @m6 { udp sport . ip6 saddr }
		udp dport 7000-7003 drop
	}
}
table inet seen {
	set out { type inet_service . iface_index; flags dynamic; size 65535; }
	chain onward { type filter hook forward priority 0; udp dport 7000 add @out { udp sport . oif }; }
}
`

// TestTranslations holds the addresses that the model says MASQUERADE and
// REDIRECT translate to against those the kernel does.
func TestTranslations(t *testing.T) {
	lab.Need(t, "nft")
	base := *seedFlag
	if base == 0 {
		base = uint64(time.Now().UnixNano() % 1e9)
	}
	t.Logf("seed %d (-seed %d runs it again)", base, base)
	books := map[string]int{}
	for i := range uint64(8) {
		t.Run(fmt.Sprint(base+i), func(t *testing.T) { translate(t, base+i, books) })
	}
	t.Logf("%v", books)
	for _, k := range []string{"masquerade ip", "masquerade ip6", "redirect ip", "redirect ip6"} {
		if books[k] == 0 {
			t.Errorf("never seen: %s", k)
		}
	}
}

func translate(t *testing.T, seed uint64, books map[string]int) {
	l := lab.New(t, lab.Topology{})
	w := build(t, l, seed, seed%2 == 0)
	for _, link := range w.links {
		w.ns.Sysctl(t, "net/ipv4/conf/"+link+"/forwarding", "1", "net/ipv4/conf/"+link+"/rp_filter", "0")
	}
	w.ns.Sysctl(t, "net/ipv4/conf/all/rp_filter", "0", "net/ipv6/conf/all/forwarding", "1")
	w.ns.Load(t, lab.NFT, translations)
	table := w.read(t)
	defer func() {
		if t.Failed() {
			t.Logf("seed %d\n%s", seed, w.dump(t))
		}
	}()
	id := uint16(20000)
	for _, f := range []firewall.Family{firewall.IPv4, firewall.IPv6} {
		var sent []packet
		for _, r := range table.Routes {
			if r.Family != f || r.Type != typeUnicast || r.Dst.Addr().IsMulticast() {
				continue
			}
			for range 4 {
				id++
				dst := firewall.AddrValue(r.Dst.Addr()).Add(firewall.Num(uint64(w.n(4)))).And(firewall.MaxValue(f.AddrLen()))
				sent = append(sent, packet{id: id, src: w.random(f), dst: dst, mark: uint32(3 * w.n(2)), in: table.LinkByName([]string{"v0", "v1"}[w.n(2)])})
				sent[len(sent)-1].peer = map[string]string{"v0": "p0", "v1": "p1"}[sent[len(sent)-1].in.Name]
			}
		}
		w.inject(t, table, f, sent)
		masq, redir := w.set(t, "tr", "m"+digit(f)), w.set(t, "tr", "r"+digit(f))
		out := w.set(t, "seen", "out")
		for _, p := range sent {
			what := fmt.Sprintf("%s from %s to %s by %s", f, p.src.Addr(f), p.dst.Addr(f), p.in.Name)
			if p.mark == 3 {
				got, there := redir[p.id]
				a, ok := table.RedirectAddr(f, p.in.Link, p.dst)
				books["redirect "+f.String()]++
				if ok != there && !p.refused(table, f) {
					t.Errorf("%s: redirected %v, model %v", what, there, ok)
				}
				if ok && there && netip.MustParseAddr(got) != a.Addr(f) {
					t.Errorf("%s: redirected to %s, model %s", what, got, a.Addr(f))
				}
				continue
			}
			link := table.LinkByName(out[p.id])
			if link == nil {
				continue
			}
			got, there := masq[p.id]
			a, ok := table.MasqueradeAddr(f, link.Link, p.dst)
			switch {
			case !ok:
				books["masquerade unknown or none "+f.String()]++
			case !there:
				t.Errorf("%s out by %s: not masqueraded, model %s", what, link.Name, a.Addr(f))
			case netip.MustParseAddr(got) != a.Addr(f):
				t.Errorf("%s out by %s: masqueraded to %s, model %s", what, link.Name, got, a.Addr(f))
			default:
				books["masquerade "+f.String()]++
			}
		}
	}
}

func digit(f firewall.Family) string {
	return map[firewall.Family]string{firewall.IPv4: "4", firewall.IPv6: "6"}[f]
}

// refused: the packet never got to prerouting.
func (p packet) refused(t *Table, f firewall.Family) bool {
	return t.Receive(f, firewall.Single(p.src), p.dst, p.in.Link)[0].Kind != Local
}
