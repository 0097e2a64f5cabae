package route

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hostaudit/hostaudit/firewall"
)

// Table is the routing of one network namespace. It does not change once
// decoded and may be used by several goroutines.
type Table struct {
	Links  []*Link
	Addrs  []*Addr
	Routes []*Route // all tables, both families, in the kernel's order
	Rules4 []*Rule
	Rules6 []*Rule
	// Gaps are the things that could not be read. Answers that would have
	// needed them are Unknown.
	Gaps []Gap
	// MultipathPolicy, FwmarkReflect, … are settings callers may need; those
	// that could not be read are in Gaps and 0 here.
	Settings Settings

	byIndex map[int]*Link
	byName  map[string]*Link
	lo      *Link
	v4, v6  *domain
	all4    map[string]int32 // net.ipv4.conf.all.*
	unread4 map[string]string
	// localRoutes: fib_has_custom_local_routes.
	localRoutes tri
	failed      map[neighKey]bool
	known       map[neighKey]bool // neighbours that need no discovery
	fwd6        tri
	realms      bool
	labels      []addrLabel
	labelsWhy   string
	hasVRF      bool
	// users6 are the IPv6 routes of each nexthop object.
	users6 map[uint32][]*Route
	// suppresses: a rule has suppress_prefixlength.
	suppresses bool
	// oldZeronet: a kernel that may be before 5.3, when ipv4_is_zeronet was all
	// of 0.0.0.0/8.
	oldZeronet bool
	// stopsAtRefusal: a kernel known to end the lookup at a blackhole,
	// unreachable or prohibit route of the main table also without rules of
	// one's own.
	stopsAtRefusal bool
	firstPort      bool // see DNATTakesFirstPort
	againInFull    bool // see RoutesAgainInFull
	bigEndian      bool
	ifaddrs4       map[firewall.Value]*Addr
	several4       map[firewall.Value]bool // addresses that more than one link has
	settingGap     map[string]string
}

// Settings are keys of the namespace that decide which route an answer takes.
type Settings struct {
	IPForward       bool // net.ipv4.ip_forward
	IPv6Forwarding  bool // net.ipv6.conf.all.forwarding
	MultipathPolicy int  // net.ipv4.fib_multipath_hash_policy
	FwmarkReflect   bool // net.ipv4.fwmark_reflect: RSTs and ICMP errors carry the packet's mark
	FwmarkReflect6  bool
	TCPFwmarkAccept bool // net.ipv4.tcp_fwmark_accept: a connection carries its SYN's mark
	// TCPStrict: net.netfilter.nf_conntrack_tcp_loose is 0, so that only a SYN begins
	// a connection. (A SYN always does; nf_conntrack_tcp_be_liberal is about packets
	// outside of the window, which no client's first ones are.)
	TCPStrict             bool
	NonlocalBind          bool
	NonlocalBind6         bool
	DisableIPv6           bool // net.ipv6.conf.all.disable_ipv6, as a default; the links' own count
	DropUnicastInL2Mcast6 bool
}

type tri uint8

const (
	no tri = iota
	yes
	unknown
)

// domain is one family's tables and rules.
type domain struct {
	family firewall.Family
	rules  []*Rule
	fibs   map[uint32]*fib
	// merged is IPv4's local and main table in one trie, as the kernel keeps
	// them until the first routing rule is configured (fib_trie_unmerge).
	// customRules tells whether one ever was; no reading of the rules does.
	merged      *fib
	customRules tri
	mergedWhy   string
	// defaultTable: table 253 exists.
	defaultTable bool
	// unread says why the family cannot be answered for; "" when it can.
	unread string
}

func (c *Capture) order() binary.ByteOrder {
	if c.BigEndian {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

const (
	tableLocal   = 255
	tableMain    = 254
	tableDefault = 253
)

// Decode makes a Table of a capture. The error is a *[DecodeError]: an answer
// that does not have the form of the ABI. A capture without its links or
// addresses cannot be decoded; every other missing part is a gap.
func Decode(c *Capture) (*Table, error) {
	t := &Table{
		byIndex: map[int]*Link{}, byName: map[string]*Link{},
		all4: map[string]int32{}, unread4: map[string]string{},
		ifaddrs4: map[firewall.Value]*Addr{}, settingGap: map[string]string{},
		several4: map[firewall.Value]bool{}, users6: map[uint32][]*Route{},
	}
	for _, need := range []string{blobLinks, blobAddrs} {
		if b, ok := c.Blobs[need]; !ok || b.Err != "" {
			return nil, &DecodeError{need, cmp.Or(b.Err, "not in the capture")}
		}
	}
	if err := t.decodeLinks(c); err != nil {
		return nil, err
	}
	if err := t.decodeRouting(c); err != nil {
		return nil, err
	}
	t.present(c, blobRest, "routing at one moment")
	t.decodeSettings(c)
	t.decodeMerged(c)
	t.decodeProbe(c)
	slices.SortStableFunc(t.Gaps, func(a, b Gap) int { return cmp.Compare(a.What, b.What) })
	return t, nil
}

func (t *Table) decodeLinks(c *Capture) (err error) {
	if t.Links, err = decodeLinks(c); err != nil {
		return err
	}
	for _, l := range t.Links {
		t.byIndex[l.Index] = l
		t.byName[l.Name] = l
		if l.Loopback() && t.lo == nil {
			t.lo = l
		}
		if l.Kind == "vrf" {
			t.hasVRF = true
		}
	}
	if t.lo == nil {
		return &DecodeError{blobLinks, "no loopback interface"}
	}
	if t.Addrs, err = decodeAddrs(c, t.byIndex); err != nil {
		return err
	}
	for _, a := range t.Addrs {
		if a.Family == firewall.IPv4 {
			if o := t.ifaddrs4[a.value()]; o != nil && o.Link != a.Link {
				t.several4[a.value()] = true
			}
			t.ifaddrs4[a.value()] = a
		}
	}
	return nil
}

// present reports whether a part of the capture can be decoded; if not, the
// gap is noted, unless the kernel does not have the thing.
func (t *Table) present(c *Capture, name, what string) (ok, absent bool) {
	b, there := c.Blobs[name]
	switch {
	case there && b.Err == "":
		return true, false
	case there && b.Absent:
		return false, true
	}
	t.Gaps = append(t.Gaps, Gap{what, cmp.Or(b.Err, "not in the capture")})
	return false, false
}

func (t *Table) decodeRouting(c *Capture) (err error) {
	nexthops := map[uint32]*nexthop{}
	if ok, _ := t.present(c, blobNexthops, "nexthop objects"); ok {
		if nexthops, err = decodeNexthops(c, t.byIndex); err != nil {
			return err
		}
	}
	if ok, _ := t.present(c, blobNeighs6, "IPv6 neighbours"); ok {
		if t.failed, err = decodeNeighs(c, blobNeighs6, failedNeigh); err != nil {
			return err
		}
	}
	t.known = map[neighKey]bool{}
	for _, blob := range []string{blobNeighs4, blobNeighs6} { // what is not there holds none
		known, err := decodeNeighs(c, blob, knownNeigh)
		if err != nil {
			return err
		}
		maps.Copy(t.known, known)
	}
	if ok, _ := t.present(c, blobLabels, "IPv6 address labels"); ok {
		if t.labels, err = decodeLabels(c); err != nil {
			return err
		}
	} else {
		t.labelsWhy = "the IPv6 address labels could not be read"
	}
	if t.v4, err = t.decodeDomain(c, firewall.IPv4, blobRoutes4, blobRules4, nexthops); err != nil {
		return err
	}
	t.Rules4 = t.v4.rules
	if t.v6, err = t.decodeDomain(c, firewall.IPv6, blobRoutes6, blobRules6, nexthops); err != nil {
		return err
	}
	t.Rules6 = t.v6.rules
	return nil
}

func (t *Table) decodeDomain(c *Capture, f firewall.Family, routes, rules string, nexthops map[uint32]*nexthop) (*domain, error) {
	d := &domain{family: f, fibs: map[uint32]*fib{}}
	name := map[firewall.Family]string{firewall.IPv4: "IPv4", firewall.IPv6: "IPv6"}[f]
	ok, absent := t.present(c, routes, name+" routes")
	if absent {
		return d, nil // the family is not there: every lookup fails
	}
	if !ok {
		d.unread = "the " + name + " routes could not be read"
		return d, nil
	}
	rs, err := decodeRoutes(c, routes, t.byIndex, nexthops)
	if err != nil {
		return nil, err
	}
	t.Routes = append(t.Routes, rs...)
	byTable := map[uint32][]*Route{}
	for _, r := range rs {
		byTable[r.Table] = append(byTable[r.Table], r)
		if f == firewall.IPv6 && r.NexthopID != 0 {
			t.users6[r.NexthopID] = append(t.users6[r.NexthopID], r)
		}
		for _, h := range r.Hops {
			t.realms = t.realms || f == firewall.IPv4 && h.Realm != 0
		}
		t.realms = t.realms || f == firewall.IPv4 && r.Realm != 0
	}
	for id, rs := range byTable {
		d.fibs[id] = newFIB(f, id, rs)
	}
	d.defaultTable = d.fibs[tableDefault] != nil
	if f == firewall.IPv4 {
		d.merged = newFIB(f, tableMain, append(slices.Clone(byTable[tableLocal]), byTable[tableMain]...))
	}
	ok, absent = t.present(c, rules, name+" routing rules")
	switch {
	case ok:
		if d.rules, err = decodeRules(c, rules); err != nil {
			return nil, err
		}
		for _, r := range d.rules {
			t.suppresses = t.suppresses || r.SuppressPrefixLen >= 0
			t.realms = t.realms || f == firewall.IPv4 && r.Realm != 0
		}
	case absent: // CONFIG_IP_MULTIPLE_TABLES=n: local, then main
		d.rules = defaultRules(f)
	default:
		d.unread = "the " + name + " routing rules could not be read"
	}
	return d, nil
}

func defaultRules(f firewall.Family) []*Rule {
	mk := func(pref, table uint32) *Rule {
		return &Rule{Family: f, Pref: pref, Action: actTable, Table: table, SuppressPrefixLen: -1, SuppressGroup: -1}
	}
	rules := []*Rule{mk(0, tableLocal), mk(32766, tableMain)}
	if f == firewall.IPv4 {
		rules = append(rules, mk(32767, tableDefault))
	}
	return rules
}

// isDefault reports whether the rules are the three (two in IPv6) a namespace
// begins with.
func (d *domain) isDefault() bool {
	want := defaultRules(d.family)
	if len(d.rules) != len(want) {
		return false
	}
	for i, r := range d.rules {
		if !r.same(want[i]) {
			return false
		}
	}
	return true
}

// same reports whether the rule is one of those that a namespace begins with.
func (r *Rule) same(w *Rule) bool {
	cp := *r
	cp.Protocol, cp.DSCPMask = 0, 0
	cp.Src, cp.Dst = w.Src, w.Dst
	return cp == *w && r.Src.Bits() <= 0 && r.Dst.Bits() <= 0
}

func (t *Table) decodeSettings(c *Capture) {
	for _, k := range conf4All {
		file := "sys/net/ipv4/conf/all/" + k
		n, why := c.number(file)
		if why == "" {
			t.all4[k] = int32(n)
			continue
		}
		if c.Blobs[file].Absent {
			continue // an old kernel without the key: 0
		}
		t.unread4[k] = why
		t.Gaps = append(t.Gaps, Gap{sysctlName(file), why})
	}
	get := func(file string) int {
		n, why := c.number(file)
		if why != "" && !c.Blobs[file].Absent {
			t.settingGap[file] = why
			t.Gaps = append(t.Gaps, Gap{sysctlName(file), why})
		}
		return int(n)
	}
	t.Settings = Settings{
		IPForward:             get("sys/net/ipv4/ip_forward") != 0,
		IPv6Forwarding:        get(allForwarding) != 0,
		MultipathPolicy:       get("sys/net/ipv4/fib_multipath_hash_policy"),
		FwmarkReflect:         get("sys/net/ipv4/fwmark_reflect") != 0,
		FwmarkReflect6:        get("sys/net/ipv6/fwmark_reflect") != 0,
		TCPFwmarkAccept:       get("sys/net/ipv4/tcp_fwmark_accept") != 0,
		NonlocalBind:          get("sys/net/ipv4/ip_nonlocal_bind") != 0,
		NonlocalBind6:         get("sys/net/ipv6/ip_nonlocal_bind") != 0,
		DisableIPv6:           get("sys/net/ipv6/conf/all/disable_ipv6") != 0,
		DropUnicastInL2Mcast6: get("sys/net/ipv6/conf/all/drop_unicast_in_l2_multicast") != 0,
	}
	if b, asked := c.Blobs[tcpLoose]; asked && !b.Absent {
		t.Settings.TCPStrict = get(tcpLoose) == 0 && t.settingGap[tcpLoose] == ""
	}
	release := string(c.Blobs[osRelease].Data)
	// "netfilter: nat: restore default DNAT behavior"; where a stable kernel has
	// it, too, all ports of the range are followed.
	t.firstPort = atLeast(release, 6, 8, 0)
	t.againInFull = atLeast(release, 5, 13, 0)
	t.bigEndian = c.BigEndian
	t.oldZeronet = !atLeast(release, 5, 3, 0)
	t.stopsAtRefusal = atLeast(release, 6, 18, 44) // seen there
	t.fwd6 = no
	switch {
	case t.settingGap[allForwarding] != "":
		t.fwd6 = unknown
	case t.Settings.IPv6Forwarding:
		t.fwd6 = yes
	}
}

// atLeast compares the release of a kernel, "6.18.44-generic"; one that cannot
// be read is old.
func atLeast(release string, major, minor, patch int) bool {
	var v [3]int
	if n, _ := fmt.Sscanf(release, "%d.%d.%d", &v[0], &v[1], &v[2]); n < 2 {
		return false
	}
	return slices.Compare(v[:], []int{major, minor, patch}) >= 0
}

// decodeMerged finds out whether a routing rule was ever configured for IPv4. From
// then on the kernel keeps the local and main table apart and looks in one after
// the other; before, they are one trie. Rules of one's own tell, and otherwise
// /proc/net/fib_triestat: of one trie both tables show the sum of their prefixes.
func (t *Table) decodeMerged(c *Capture) {
	d := t.v4
	d.customRules = unknown
	if d.unread != "" {
		return
	}
	if !d.isDefault() {
		d.customRules = yes
		return
	}
	b, ok := c.Blobs[blobTrieStat]
	if !ok || b.Err != "" {
		d.mergedWhy = "net/fib_triestat: " + cmp.Or(b.Err, "not in the capture")
		return
	}
	prefixes := map[string]int{}
	for _, s := range trieStat(string(b.Data)) {
		prefixes[s.name] = s.prefixes
	}
	_, d.defaultTable = prefixes["Id 253:"]
	local, main := d.fibs[tableLocal].size(), d.fibs[tableMain].size()
	inLocal, inMain := prefixes["Local:"], prefixes["Main:"]
	switch {
	case local+main == 0: // nothing to find in either
	case inLocal == local+main && inMain == local+main:
		d.customRules = no
	case inLocal == local && inMain == main:
		d.customRules = yes
	default:
		d.mergedWhy = "net/fib_triestat does not agree with the routes"
	}
}

type trieSection struct {
	name     string
	prefixes int
}

func trieStat(text string) []trieSection {
	var out []trieSection
	for _, line := range strings.Split(text, "\n") {
		if line == "Main:" || line == "Local:" || strings.HasPrefix(line, "Id ") {
			out = append(out, trieSection{name: line})
			continue
		}
		if len(out) == 0 {
			continue
		}
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "Prefixes:"); ok {
			out[len(out)-1].prefixes, _ = strconv.Atoi(strings.TrimSpace(n))
		}
	}
	return out
}

// Link returns the link with an index, nil for none.
func (t *Table) Link(index int) *Link { return t.byIndex[index] }

// LinkByName returns the link with a name or alternative name, nil for none.
func (t *Table) LinkByName(name string) *Link {
	if l := t.byName[name]; l != nil {
		return l
	}
	for _, l := range t.Links {
		if slices.Contains(l.AltNames, name) {
			return l
		}
	}
	return nil
}

// Loopback returns the namespace's loopback link.
func (t *Table) Loopback() *Link { return t.lo }

// link finds the model's own link for one a caller holds.
func (t *Table) link(l *firewall.Link) *Link {
	if l == nil {
		return nil
	}
	return t.byIndex[l.Index]
}

func (t *Table) domain(f firewall.Family) *domain {
	if f == firewall.IPv4 {
		return t.v4
	}
	return t.v6
}

// paintings caches answers of one routing table for the whole address space.
type paintings struct {
	mu  sync.Mutex
	all map[resolveKey][]tablePart
}
