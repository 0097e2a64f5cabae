package ipset

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
)

// everyType makes sets of the types that a kernel can have, with each option.
const everyType = `create ip4 hash:ip family inet
add ip4 10.0.0.1
add ip4 10.0.0.9
create ip4t hash:ip family inet timeout 300 counters comment skbinfo
add ip4t 10.0.0.2 timeout 0 comment "one two" packets 3 bytes 4 skbmark 0x11/0xff skbprio 1:10 skbqueue 5
add ip4t 10.0.0.3 timeout 200
create ip4m hash:ip family inet netmask 24
add ip4m 10.1.0.0
create ip6 hash:ip family inet6 forceadd
add ip6 2001:db8::1
create net4 hash:net family inet
add net4 10.0.0.0/8
add net4 10.1.0.0/16 nomatch
add net4 10.1.2.3
create net6 hash:net family inet6
add net6 2001:db8::/32
create ipport hash:ip,port family inet
add ipport 10.0.0.1,tcp:80
add ipport 10.0.0.1,udp:53
add ipport 10.0.0.1,icmp:8/0
add ipport 10.0.0.1,47:0
create ipportip hash:ip,port,ip family inet
add ipportip 10.0.0.1,tcp:80,10.0.0.2
create ipportnet hash:ip,port,net family inet
add ipportnet 10.0.0.1,tcp:80,10.0.0.0/8
add ipportnet 10.0.0.1,tcp:80,10.2.0.0/16 nomatch
create netport hash:net,port family inet
add netport 10.0.0.0/8,tcp:22
create netiface hash:net,iface family inet
add netiface 10.0.0.0/8,eth0
add netiface 0.0.0.0/0,lo
add netiface 10.1.0.0/16,physdev:eth1 nomatch
create ipmark hash:ip,mark family inet markmask 0xff
add ipmark 10.0.0.1,0x12
create macs hash:mac
add macs 02:00:00:00:00:01
create netnet hash:net,net family inet
add netnet 10.0.0.0/8,192.168.0.0/16
create netportnet hash:net,port,net family inet
add netportnet 10.0.0.0/8,tcp:80,192.168.0.0/16
create ipmac hash:ip,mac family inet
add ipmac 10.0.0.1,02:00:00:00:00:02
create bip bitmap:ip range 10.0.0.0-10.0.0.255
add bip 10.0.0.5
create bipm bitmap:ip range 10.0.0.0-10.0.255.255 netmask 24
add bipm 10.0.7.0
create bipmac bitmap:ip,mac range 10.0.0.0-10.0.0.255
add bipmac 10.0.0.5,02:00:00:00:00:03
add bipmac 10.0.0.6
create bport bitmap:port range 1000-2000
add bport 1500
create all list:set
add all net4
add all ip4
`

// TestReadEveryType holds what is read against what `ipset save` prints, type
// by type, for the types that this kernel has.
func TestReadEveryType(t *testing.T) {
	lab.Need(t, "ipset")
	n := lab.New(t, lab.Topology{}).Server
	missing := map[string]bool{}
	made := 0
	for line := range strings.Lines(everyType) {
		f := strings.Fields(line)
		if missing[f[1]] {
			continue
		}
		err := n.TryLoad(t.Context(), lab.IPSet, line)
		switch {
		case err == nil:
			made++
		case f[0] == "create":
			missing[f[1]] = true
			t.Logf("this kernel has no %s: %s", f[2], err)
		default:
			t.Fatalf("%s: %v", line, err)
		}
	}
	if made < 40 {
		t.Fatalf("only %d lines were accepted", made)
	}
	// Timeouts run down between one reading and the next: what is read lies
	// between what ipset prints before and after it.
	before := savedElements(t, n)
	sets := readAll(t, n)
	after := savedElements(t, n)
	k := open(t, n)
	got := map[string]int{}
	elements := 0
	for _, s := range sets.All() {
		for _, line := range saveText(s) {
			text, timeout := splitTimeout(t, line)
			got[text] = timeout
			elements++
		}
	}
	if elements != len(got) {
		t.Errorf("%d elements were read, %d of them different", elements, len(got))
	}
	for text, timeout := range got {
		most, was := before[text]
		least, is := after[text]
		switch {
		case !was || !is:
			t.Errorf("read, and not printed by ipset save: %s", text)
		case timeout > most || timeout < least || (timeout == 0) != (most == 0):
			t.Errorf("%s: timeout %d was read, ipset save printed %d before and %d after", text, timeout, most, least)
		}
	}
	for text := range before {
		if _, ok := got[text]; !ok {
			t.Errorf("printed by ipset save, and not read: %s", text)
		}
	}
	for _, s := range sets.All() {
		if found, err := sets.IPSet(s.Index); err != nil || found != s {
			t.Errorf("index %d of %s finds %v, %v", s.Index, s.Name, found, err)
		}
		if i, err := k.Index(t.Context(), s.Name); err != nil || i != s.Index {
			t.Errorf("the kernel says that %s has index %d (%v), read %d", s.Name, i, err, s.Index)
		}
	}
	if s := sets.ByName("ip4t"); !s.Timeout || s.DefaultTimeout != 300 || !s.Counters || !s.SKBInfo || s.Comments == nil {
		t.Errorf("flags of ip4t: %+v", s)
	}
	if s := sets.ByName("ip4m"); s.Mask != firewall.PrefixMask(24, 4) {
		t.Errorf("mask of ip4m: %v", s.Mask)
	}
	if s := sets.ByName("ip6"); !s.ForceAdd || s.Family != firewall.IPv6 {
		t.Errorf("flags of ip6: %+v", s)
	}
	if s := sets.ByName("bport"); s.FirstPort != 1000 || s.LastPort != 2000 || s.Family != 0 {
		t.Errorf("range of bport: %+v", s)
	}
	if s := sets.ByName("all"); len(s.Members) != 2 || s.Members[0].Name != "net4" || s.Members[1].Name != "ip4" {
		t.Errorf("members of all: %+v", s.Members)
	}
}

// savedElements are the elements that `ipset save` prints, without what of them
// is not kept, and the seconds that each has left.
func savedElements(t *testing.T, n *lab.Namespace) map[string]int {
	t.Helper()
	elements := map[string]int{}
	for line := range strings.Lines(n.Run(t, "ipset", "save")) {
		f := strings.Fields(line)
		if f[0] != "add" {
			continue
		}
		// Counters and marks of elements are not kept.
		for _, opt := range []string{"packets", "bytes", "skbmark", "skbprio", "skbqueue"} {
			if i := slices.Index(f, opt); i >= 0 {
				f = slices.Delete(f, i, i+2)
			}
		}
		text, timeout := splitTimeout(t, strings.Join(f, " "))
		if _, twice := elements[text]; twice {
			t.Errorf("ipset save printed twice: %s", text)
		}
		elements[text] = timeout
	}
	return elements
}

// splitTimeout takes the number out of the timeout of an element: 0 where it
// stays for good, -1 where the set has no timeouts.
func splitTimeout(t *testing.T, line string) (text string, seconds int) {
	t.Helper()
	head, rest, ok := strings.Cut(line, " timeout ")
	if !ok {
		return line, -1
	}
	number, tail, _ := strings.Cut(rest, " ")
	seconds, err := strconv.Atoi(number)
	if err != nil {
		t.Fatalf("timeout of %q: %v", line, err)
	}
	return head + " timeout N " + tail, seconds
}

// saveText writes the elements of a set as `ipset save` does.
func saveText(s *firewall.IPSet) []string {
	var out []string
	if s.Type == "list:set" {
		for _, m := range s.Members {
			out = append(out, "add "+s.Name+" "+m.Name)
		}
		return out
	}
	n := s.Family.AddrLen()
	for i := range s.N {
		var parts []string
		addr := func(col []byte, bits []uint8) {
			if col == nil {
				return
			}
			a, _ := netip.AddrFromSlice(col[i*n : (i+1)*n])
			text := a.String()
			if bits != nil && int(bits[i]) != 8*n && s.Type != "bitmap:ip" {
				text += fmt.Sprintf("/%d", bits[i])
			}
			parts = append(parts, text)
		}
		addr(s.Addrs, s.Bits)
		if s.Ports != nil {
			switch proto := s.Protos; {
			case proto == nil:
				parts = append(parts, fmt.Sprint(s.Ports[i]))
			case proto[i] == 6:
				parts = append(parts, fmt.Sprintf("tcp:%d", s.Ports[i]))
			case proto[i] == 17:
				parts = append(parts, fmt.Sprintf("udp:%d", s.Ports[i]))
			case proto[i] == 1 && s.Ports[i] == 8<<8:
				parts = append(parts, "icmp:echo-request")
			case proto[i] == 47:
				parts = append(parts, "gre:0")
			default:
				parts = append(parts, fmt.Sprintf("%d:%d", proto[i], s.Ports[i]))
			}
		}
		addr(s.Addrs2, s.Bits2)
		if s.Marks != nil {
			parts = append(parts, fmt.Sprintf("0x%08x", s.Marks[i]))
		}
		if s.Ifaces != nil {
			text := s.Ifaces[i]
			if s.Physdev != nil && s.Physdev[i] {
				text = "physdev:" + text
			}
			parts = append(parts, text)
		}
		if s.MACs != nil {
			m := s.MACs[6*i : 6*i+6]
			if !slices.Equal(m, make([]byte, 6)) {
				parts = append(parts, fmt.Sprintf("%02X:%02X:%02X:%02X:%02X:%02X", m[0], m[1], m[2], m[3], m[4], m[5]))
			}
		}
		line := "add " + s.Name + " " + strings.Join(parts, ",")
		if s.Timeout {
			line += fmt.Sprintf(" timeout %d", s.Timeouts[i])
		}
		if s.Comments != nil && s.Comments[i] != "" {
			line += fmt.Sprintf(" comment %q", s.Comments[i])
		}
		if s.Nomatch != nil && s.Nomatch[i] {
			line += " nomatch"
		}
		out = append(out, line)
	}
	return out
}
