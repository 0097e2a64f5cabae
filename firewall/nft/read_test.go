package nft

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// everything shows a whole ruleset, texts included.
func everything(rs *fw.Ruleset) string {
	var b strings.Builder
	for _, t := range rs.Tables {
		fmt.Fprintf(&b, "table %s %s %s %d %v %d\n", t.Backend, t.Family, t.Name, t.Handle, t.Dormant, t.Owner)
		for _, s := range t.Sets {
			fmt.Fprintf(&b, " set %s %v %v {%s} %q %d\n", s.Name, s.Fields, s.Interval, showElements(s), s.Unread, s.Count)
		}
		for _, c := range t.Chains {
			fmt.Fprintf(&b, " chain %s %+v %q\n", c.Name, c.Base, c.Unread)
			for _, r := range c.Rules {
				fmt.Fprintf(&b, "  %d %d %d %q: %s | %s\n", r.Number, r.Handle, r.Packets, r.Comment, showRule(r), r.Text())
			}
		}
	}
	return b.String()
}

const sample = `table inet filter {
	set blocked { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.1 } }
	set timed { type ipv4_addr; flags timeout; elements = { 10.0.0.1 timeout 1h, 10.0.0.2 } }
	set limited { type ipv4_addr; flags dynamic; limit rate 5/second; elements = { 10.0.0.1 limit rate 7/minute } }
	set counted { type ipv4_addr; counter; elements = { 10.0.0.1 counter packets 1 bytes 2 } }
	map names { type ifname : verdict; flags interval; elements = { "eth*" : drop, "lo" : accept, * : jump other } }
	map objects { type ipv4_addr : counter; elements = { 10.0.0.1 : "hits" } }
	counter hits { }
	chain other { tcp dport 22 accept
	}
	chain input {
		type filter hook input priority -7; policy drop;
		ip saddr @blocked counter packets 3 bytes 4 drop comment "bad people"
		iifname vmap @names
		counter name ip saddr map @objects
	}
	chain nat { type nat hook prerouting priority dstnat; policy accept; }
	chain out { type route hook output priority 300; policy accept; }
}
table netdev early {
	chain in { type filter hook ingress device lo priority -500; policy accept; }
}
table inet asleep {
	flags dormant
	chain in { type filter hook input priority 0; policy drop; }
}
table bridge br { chain across { type filter hook forward priority 0; policy accept; }
}
table ip filter { chain INPUT { type filter hook input priority filter; policy accept; }
}
table ip nat { chain INPUT { type filter hook input priority filter; policy accept; }
}
`

// TestRead: tables, chains, sets and elements as they were loaded.
func TestRead(t *testing.T) {
	needTools(t, "nft")
	inNetns(t)
	load(t, sample)
	rs := read(t, Options{})
	var got []string
	for _, tab := range rs.Tables {
		got = append(got, fmt.Sprintf("%s %s %s dormant=%v", tab.Backend, tab.Family, tab.Name, tab.Dormant))
		for _, s := range tab.Sets {
			line := fmt.Sprintf("set %s %s", s.Name, showElements(s))
			if s.Expires != nil {
				line += fmt.Sprintf(" expires %v", s.Expires[0] > 0)
			}
			got = append(got, line)
		}
		for _, c := range tab.Chains {
			base := ""
			if b := c.Base; b != nil {
				base = fmt.Sprintf(" type %d %s %d %v %s", b.Type, b.Hook, b.Priority, b.Devices, b.Policy)
			}
			got = append(got, "chain "+c.Name+base)
			for _, r := range c.Rules {
				got = append(got, fmt.Sprintf("%d %q %d %s", r.Number, r.Comment, r.Packets, showRule(r)))
			}
		}
	}
	want := []string{
		"nftables inet filter dormant=false",
		"set blocked 0a000000-0affffff c0000201",
		"set timed 0a000001 0a000002 expires true",
		"set limited 0a000001 (a rate limit of 7/minute)",
		"set counted 0a000001",
		"set names 65746800000000000000000000000000-657468ffffffffffffffffffffffffff:drop 6c6f0000000000000000000000000000:accept *:jump other",
		"set objects 0a000001:object hits",
		"chain other",
		`1 "" -1 l4proto{0x6}; dport{0x16}; accept`,
		"chain input type 0 input -7 [] drop",
		`1 "bad people" 3 nfproto{0x2}; saddr@blocked; inert counter; drop`,
		`2 "" -1 iifname vmap @names`,
		`3 "" -1 nfproto{0x2}; saddr@objects; inert counter`,
		"chain nat type 1 prerouting -100 [] accept",
		"chain out type 2 output 300 [] accept",
		"nftables netdev early dormant=false",
		"chain in type 0 ingress -500 [lo] accept",
		"nftables inet asleep dormant=true",
		"chain in type 0 input 0 [] drop",
		"nftables bridge br dormant=false",
		"chain across type 0 forward 0 [] accept",
		"iptables-nft ip filter dormant=false",
		"chain INPUT type 0 input 0 [] accept",
		"nftables ip nat dormant=false",
		"chain INPUT type 0 input 0 [] accept",
	}
	// Of an element without a timeout nothing is told by its place in the dump.
	for i, line := range got {
		if strings.HasPrefix(line, "set timed") {
			got[i] = "set timed 0a000001 0a000002 expires true"
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestEmpty: a namespace without rules is an empty ruleset, not an error.
func TestEmpty(t *testing.T) {
	inNetns(t)
	if rs := read(t, Options{}); len(rs.Tables) != 0 {
		t.Errorf("%d tables in a new namespace", len(rs.Tables))
	}
}

// TestReplay: what was recorded gives the same ruleset without the kernel.
func TestReplay(t *testing.T) {
	needTools(t, "nft")
	inNetns(t)
	load(t, sample)
	src, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	rec := Record(src)
	live, err := Read(context.Background(), rec, Options{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := rec.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Replay(b)
	if err != nil {
		t.Fatal(err)
	}
	replayed, err := Read(context.Background(), again, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(everything(live), everything(replayed)); d != "" {
		t.Error(d)
	}
	for i := range b {
		if i%97 == 0 {
			if src, err := Replay(b[:i]); err == nil {
				Read(context.Background(), src, Options{}) // has to end without a panic
			}
		}
	}
}

// TestPerChain: a large ruleset, dumped chain by chain, is the same as all at
// once.
func TestPerChain(t *testing.T) {
	needTools(t, "nft")
	inNetns(t)
	var b strings.Builder
	b.WriteString("table inet t {\n")
	for c := range 40 {
		fmt.Fprintf(&b, "chain c%d {\n", c)
		for r := range 50 {
			fmt.Fprintf(&b, "ip saddr 10.0.%d.%d tcp dport %d accept\n", c, r, 1000+r)
		}
		b.WriteString("}\n")
	}
	b.WriteString("}\n")
	load(t, b.String())
	src, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	ctx := context.Background()
	var texts [2]string
	asked := 0
	for i, limit := range []uint64{1 << 30, 1} {
		d := newDecoder()
		for typ, f := range map[uint8]func([]byte) error{msgGetTable: d.table} {
			if err := each(ctx, src, dump(typ), f); err != nil {
				t.Fatal(err)
			}
		}
		if err := each(ctx, src, dump(msgGetChain), d.chain); err != nil {
			t.Fatal(err)
		}
		counting := counter{src, &asked}
		asked = 0
		if err := d.readRules(ctx, counting, limit); err != nil {
			t.Fatal(err)
		}
		if (asked > 1) != (limit == 1) {
			t.Errorf("%d dumps with a limit of %d", asked, limit)
		}
		texts[i] = everything(d.ruleset)
	}
	if !strings.Contains(texts[0], "dport{0x419}") {
		t.Error("rules are missing")
	}
	if d := cmp.Diff(texts[0], texts[1]); d != "" {
		t.Error(d)
	}
}

// counter counts dumps.
type counter struct {
	Source
	n *int
}

func (c counter) Dump(ctx context.Context, req Request) iter.Seq2[[]byte, error] {
	*c.n++
	return c.Source.Dump(ctx, req)
}

// TestLargeSet: a set above the threshold is not dumped, and single addresses
// are asked for. The small set beside it is read.
func TestLargeSet(t *testing.T) {
	needTools(t, "nft")
	inNetns(t)
	load(t, `table inet t {
	set big { type ipv4_addr; flags interval; elements = { 10.0.0.0/24, 10.1.0.1, 10.2.0.0-10.2.0.9 } }
	map bigmap { type ipv4_addr : verdict; elements = { 10.0.0.1 : drop, 10.0.0.2 : accept, 10.0.0.3 : accept } }
	set big6 { type ipv6_addr; elements = { fe80::1, fe80::2, fe80::3 } }
	set ports { type inet_service; elements = { 22, 80, 443, 8080 } }
	set small { type ipv4_addr; elements = { 10.0.0.1 } }
}
`)
	addrs := []netip.Addr{
		netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.255"), netip.MustParseAddr("10.0.1.0"),
		netip.MustParseAddr("10.2.0.5"), netip.MustParseAddr("10.2.0.10"), netip.MustParseAddr("fe80::2"), netip.MustParseAddr("fe80::4"),
	}
	src, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for name, src := range map[string]Source{"with counts": src, "without": withoutCounts{src}} {
		rs, err := Read(context.Background(), src, Options{MaxElements: 1, Ask: addrs})
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { checkLargeSets(t, rs, addrs) })
	}
}

// withoutCounts is a kernel before 6.16, which does not tell how many elements
// a set has.
type withoutCounts struct{ Source }

func (w withoutCounts) Dump(ctx context.Context, req Request) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for msg, err := range w.Source.Dump(ctx, req) {
			if err == nil && req.Type == msgGetSet {
				kept := append([]byte(nil), msg[:nfgenLen]...)
				for a := walk(msg[nfgenLen:]); a.next(); {
					if a.typ != setCount {
						kept = appendAttr(kept, a.typ, a.val)
					}
				}
				msg = kept
			}
			if !yield(msg, err) {
				return
			}
		}
	}
}

func checkLargeSets(t *testing.T, rs *fw.Ruleset, addrs []netip.Addr) {
	got := map[string]string{}
	for _, s := range rs.Tables[0].Sets {
		line := fmt.Sprintf("unread=%v n=%d", s.Unread != "", s.N)
		for _, a := range addrs {
			if ans, ok := s.Asked[string(a.AsSlice())]; ok {
				line += fmt.Sprintf(" %s=%v", a, ans.Found)
				if ans.Data.Verdict != nil {
					line += ":" + show(ans.Data.Verdict)
				}
			}
		}
		got[s.Name] = line
	}
	want := map[string]string{
		"big":    "unread=true n=0 10.0.0.1=true 10.0.0.255=true 10.0.1.0=false 10.2.0.5=true 10.2.0.10=false",
		"bigmap": "unread=true n=0 10.0.0.1=true:drop 10.0.0.255=false 10.0.1.0=false 10.2.0.5=false 10.2.0.10=false",
		"big6":   "unread=true n=0 fe80::2=true fe80::4=false",
		"ports":  "unread=true n=0",
		"small":  "unread=false n=1",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestIntervals: random sets of intervals hold what the kernel says they hold,
// asked key by key at every edge.
func TestIntervals(t *testing.T) {
	needTools(t, "nft")
	inNetns(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	src, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	ctx := context.Background()
	for range 30 {
		var elems []string
		var edges []uint32
		at := uint32(0)
		for at < 1<<31 {
			lo := at + rnd.Uint32N(1<<27)
			if rnd.IntN(4) == 0 {
				lo = at // next to the one before
			}
			hi := lo + rnd.Uint32N(1<<rnd.IntN(28))
			if len(elems) == 0 && rnd.IntN(2) == 0 {
				lo = 0
			}
			if hi > 1<<31 && rnd.IntN(2) == 0 {
				hi = 0xffffffff
			}
			elems = append(elems, fmt.Sprintf("%s-%s : %d", ip4(lo), ip4(hi), len(elems)))
			edges = append(edges, lo-1, lo, lo+1, hi-1, hi, hi+1)
			at = hi + 1
			if hi == 0xffffffff {
				break
			}
		}
		load(t, "table inet t\ndelete table inet t\ntable inet t { map m { type ipv4_addr : mark; flags interval; elements = { "+strings.Join(elems, ", ")+" } }\n}\n")
		rs := read(t, Options{})
		s := rs.Tables[0].Sets[0]
		if s.N != len(elems) {
			t.Fatalf("%d elements of %d: %v", s.N, len(elems), elems)
		}
		d := newDecoder()
		if err := each(ctx, src, dump(msgGetTable), d.table); err != nil {
			t.Fatal(err)
		}
		if err := each(ctx, src, dump(msgGetSet), d.set); err != nil {
			t.Fatal(err)
		}
		tab := d.tables[0]
		for _, v := range edges {
			addr := ip4(v)
			tab.sets["m"].set.Asked = nil
			if err := d.ask(ctx, src, tab, tab.sets["m"], []netip.Addr{addr}); err != nil {
				t.Fatal(err)
			}
			kernel, ok := tab.sets["m"].set.Asked[string(addr.AsSlice())]
			if !ok {
				t.Fatalf("no answer for %s", addr)
			}
			var want string
			if kernel.Found {
				want = fmt.Sprintf("%x", kernel.Data.Bytes)
			}
			got := ""
			for i := range s.N {
				k, e := s.Key(i)
				if a := string(addr.AsSlice()); string(k) <= a && a <= string(e) {
					got = fmt.Sprintf("%x", s.Data[i].Bytes)
				}
			}
			if got != want {
				t.Errorf("%s: %q, the kernel has %q; %v", addr, got, want, elems)
			}
		}
	}
}

func ip4(v uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// TestNoPermission: without CAP_NET_ADMIN there is an error that says so, not
// an empty ruleset.
func TestNoPermission(t *testing.T) {
	inNetns(t)
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	if err := unix.Capset(&hdr, &data[0]); err != nil { // of this thread only
		t.Fatal(err)
	}
	src, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	_, err = Read(context.Background(), src, Options{})
	if !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("error %v", err)
	}
}

// failing is a Source that refuses.
type failing struct{ err error }

func (f failing) Get(context.Context, Request) ([]byte, error) { return nil, f.err }
func (f failing) Dump(context.Context, Request) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) { yield(nil, f.err) }
}

// TestNotPresent: a kernel without nf_tables has no ruleset; that is known.
func TestNotPresent(t *testing.T) {
	rs, err := Read(context.Background(), failing{&Error{"get", "generation", syscall.EINVAL}}, Options{})
	if !errors.Is(err, ErrNotPresent) || rs == nil || len(rs.Tables) != 0 {
		t.Errorf("%v, %v", rs, err)
	}
}

// TestCancelled: a context that has ended ends the reading.
func TestCancelled(t *testing.T) {
	inNetns(t)
	src, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Read(ctx, src, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestAbandonedDump: a dump that was left early does not disturb the next
// request, whether or not the thread is still in the socket's namespace.
func TestAbandonedDump(t *testing.T) {
	needTools(t, "nft")
	inNetns(t)
	var b strings.Builder
	b.WriteString("table inet t {\nset s { type ipv4_addr; elements = {")
	for i := range 20000 {
		fmt.Fprintf(&b, "10.0.%d.%d,", i>>8, i&255)
	}
	b.WriteString("} }\n}\n")
	load(t, b.String())
	src, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for _, moved := range []bool{false, true} {
		if moved {
			inNetns(t)
		}
		fd := src.fd
		req := Request{Subsystem: subsysTables, Type: msgGetSetElem, Family: nfprotoInet,
			Attrs: string(appendString(appendString(nil, elemListTable, "t"), elemListSet, "s"))}
		for _, err := range src.Dump(context.Background(), req) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		if (src.fd == fd) != moved {
			t.Errorf("moved %v: socket %d, then %d", moved, fd, src.fd)
		}
		rs, err := Read(context.Background(), src, Options{})
		if err != nil || len(rs.Tables) != 1 || rs.Tables[0].Sets[0].N != 20000 {
			t.Errorf("moved %v: %v, %v", moved, rs, err)
		}
	}
}
