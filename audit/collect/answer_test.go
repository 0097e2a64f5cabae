package collect

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
)

// TestAnswers goes the whole line: what is read here lets reach say what a real
// client meets, behind rules of each back end, in a container, by a saved file
// as well; and a program on the way makes the answer depend.
func TestAnswers(t *testing.T) {
	lab.Need(t, "nft", "iptables-legacy", "iptables-nft", "ipset")
	l := lab.New(t, lab.Topology{Containers: 1})
	var specs []lab.Listen
	for port := uint16(8080); port <= 8086; port++ {
		specs = append(specs, lab.Listen{Proto: lab.TCP, Addr: anyAddr(port)})
	}
	l.Server.Listen(t, specs...)
	l.Containers[0].Listen(t, lab.Listen{Proto: lab.TCP, Addr: anyAddr(80)})
	l.Server.Sysctl(t, "net.ipv4.ip_forward", "1")
	l.Server.Load(t, lab.IPSet, "create some hash:net\nadd some 10.9.0.0/24\n")
	l.Server.Load(t, lab.NFT, nftRules)
	l.Server.Load(t, lab.NFT, "table ip n {\n chain p { type nat hook prerouting priority -100; tcp dport 9000 dnat to "+l.ContainerAddr(0).String()+":80; }\n}\n")
	l.Server.Load(t, lab.IPTablesLegacy, legacyRules)
	l.Server.Load(t, lab.IPTablesNFT, compatRules)
	l.Server.Load(t, lab.IPTablesNFT, "*raw\n-A PREROUTING -p tcp --dport 8085 -m set --match-set some src -j DROP\n-A PREROUTING -p tcp --dport 8086 -m set ! --match-set some src -j DROP\nCOMMIT\n")

	record := func(t *testing.T) (s *audit.Snapshot, c *Capture) {
		t.Helper()
		l.Server.Do(func() {
			var err error
			if s, c, err = Record(t.Context(), Options{Quick: true}); err != nil {
				t.Error(err)
			}
		})
		if s == nil {
			t.FailNow()
		}
		return s, c
	}
	query := func(port uint16) reach.Query {
		return reach.Query{Proto: firewall.TCP, From: l.ClientAddr(0), To: l.ServerAddr(0), Port: port, Iif: "eth0",
			FromPort: 50000} // answers pass the host too, and rules may name any other port
	}
	s, c := record(t)
	saved, err := Load(bytes.NewReader(save(t, c)))
	if err != nil {
		t.Fatal(err)
	}
	live, replay := reach.New(&s.World), reach.New(&saved.World)
	for _, port := range []uint16{8080, 8081, 8082, 8083, 8084, 8085, 8086, 8099, 9000} {
		a, err := live.Ask(query(port), reach.AnswerOnly)
		if err != nil {
			t.Fatal(err)
		}
		seen := l.Probe(t, lab.Probe{Proto: lab.TCP, From: l.ClientAddr(0), To: netip.AddrPortFrom(l.ServerAddr(0), port)})[0]
		want := map[lab.Sight]reach.Sees{lab.Connected: reach.Connected, lab.Timeout: reach.Timeout, lab.Refused: reach.Refused, lab.Unreachable: reach.Unreachable}[seen.ClientSees]
		if a.ClientSees == reach.Depends && home(s).Unread[partPrograms] != "" {
			t.Logf("port %d: depends, since programs cannot be read without real root", port)
		} else if a.ClientSees != want {
			t.Errorf("port %d: reach says %s, the client saw %s: %+v", port, a.ClientSees, want, a)
		}
		b, err := replay.Ask(query(port), reach.AnswerOnly)
		if err != nil || b.ClientSees != a.ClientSees {
			t.Errorf("port %d from the file: %s, %v", port, b.ClientSees, err)
		}
	}

	t.Run("behind a program", func(t *testing.T) {
		needRoot(t)
		p := pass(t, ebpf.XDP, ebpf.AttachXDP, 2)
		l.Server.Do(func() {
			x, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: eth0(t, l.Server).Attrs().Index, Flags: link.XDPGenericMode})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { x.Close() })
		})
		s, _ := record(t)
		if a, err := reach.New(&s.World).Ask(query(8080), reach.AnswerOnly); err != nil || a.ClientSees != reach.Depends || len(a.Conditions) == 0 {
			t.Errorf("behind an XDP program: %+v, %v", a, err)
		}
	})
}
