package route

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hostaudit/hostaudit/firewall"
)

func typeName(typ uint8) string {
	names := [...]string{"none", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit", "throw", "nat", "xresolve"}
	if int(typ) < len(names) {
		return names[typ]
	}
	return strconv.Itoa(int(typ))
}

// The names iproute2 has built in (rt_tables, rt_protos, rt_scopes). Names an
// administrator added in /etc/iproute2 are printed as numbers.
func tableName(id uint32) string {
	switch id {
	case tableLocal:
		return "local"
	case tableMain:
		return "main"
	case tableDefault:
		return "default"
	}
	return strconv.FormatUint(uint64(id), 10)
}

func protoName(p uint8) string {
	switch p {
	case 0:
		return "unspec"
	case 1:
		return "redirect"
	case 2:
		return "kernel"
	case 3:
		return "boot"
	case 4:
		return "static"
	case 8:
		return "gated"
	case 9:
		return "ra"
	case 10:
		return "mrt"
	case 11:
		return "zebra"
	case 12:
		return "bird"
	case 13:
		return "dnrouted"
	case 14:
		return "xorp"
	case 15:
		return "ntk"
	case 16:
		return "dhcp"
	case 18:
		return "keepalived"
	case 42:
		return "babel"
	case 186:
		return "bgp"
	case 187:
		return "isis"
	case 188:
		return "ospf"
	case 189:
		return "rip"
	case 192:
		return "eigrp"
	}
	return strconv.Itoa(int(p))
}

func scopeName(s uint8) string {
	switch s {
	case 0:
		return "global"
	case 200:
		return "site"
	case 253:
		return "link"
	case 254:
		return "host"
	case 255:
		return "nowhere"
	}
	return strconv.Itoa(int(s))
}

func prefixText(p netip.Prefix) string {
	if p.Bits() == 0 {
		return "default"
	}
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// String prints the route as `ip route show table all` does, up to the metric.
func (r *Route) String() string {
	var b strings.Builder
	if r.Type != typeUnicast {
		b.WriteString(typeName(r.Type) + " ")
	}
	b.WriteString(prefixText(r.Dst))
	if r.Src.Bits() > 0 {
		b.WriteString(" from " + prefixText(r.Src))
	}
	if r.NexthopID != 0 {
		fmt.Fprintf(&b, " nhid %d", r.NexthopID)
	}
	if r.TOS != 0 {
		fmt.Fprintf(&b, " tos 0x%02x", r.TOS)
	}
	if len(r.Hops) == 1 && !r.expanded {
		if g := r.Hops[0].Gateway; g.IsValid() {
			b.WriteString(" via " + via(r.Family, g))
		}
		if r.Hops[0].Link != nil {
			b.WriteString(" dev " + r.Hops[0].Link.Name)
		}
	}
	if r.Table != tableMain {
		b.WriteString(" table " + tableName(r.Table))
	}
	if r.Protocol != 3 {
		b.WriteString(" proto " + protoName(r.Protocol))
	}
	if r.Family == firewall.IPv4 && r.Scope != 0 {
		b.WriteString(" scope " + scopeName(r.Scope))
	}
	if r.PrefSrc.IsValid() {
		b.WriteString(" src " + r.PrefSrc.String())
	}
	if r.Metric != 0 || r.Family == firewall.IPv6 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	if len(r.Hops) > 1 && !r.expanded {
		for _, h := range r.Hops {
			b.WriteString(" nexthop")
			if h.Gateway.IsValid() {
				b.WriteString(" via " + via(r.Family, h.Gateway))
			}
			fmt.Fprintf(&b, " dev %s weight %d", h.Link.Name, h.Weight)
		}
	}
	return b.String()
}

// via prints a gateway, with its family where that is not the route's.
func via(f firewall.Family, g netip.Addr) string {
	if firewall.FamilyOf(g) == f {
		return g.String()
	}
	if g.Is4() {
		return "inet " + g.String()
	}
	return "inet6 " + g.String()
}

// String prints the address as `ip addr` does, up to the scope, and the link.
func (a *Addr) String() string {
	family := "inet"
	if a.Family == firewall.IPv6 {
		family = "inet6"
	}
	text := fmt.Sprintf("%s %s/%d", family, a.Local, a.Prefix.Bits())
	if a.Prefix.Addr() != netip.PrefixFrom(a.Local, a.Prefix.Bits()).Masked().Addr() {
		text = fmt.Sprintf("%s %s peer %s", family, a.Local, a.Prefix)
	}
	return text + " scope " + scopeName(a.Scope) + " dev " + a.Link.Name
}

// String prints the rule as `ip rule` does, with a space for its tab.
func (r *Rule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:", r.Pref)
	if r.Invert {
		b.WriteString(" not")
	}
	b.WriteString(" from " + ruleAddr(r.Src))
	if r.Dst.Bits() > 0 {
		b.WriteString(" to " + ruleAddr(r.Dst))
	}
	if r.TOS != 0 {
		fmt.Fprintf(&b, " tos 0x%02x", r.TOS)
	}
	if r.Mark != 0 || r.Mask != 0 {
		b.WriteString(" fwmark " + hex(r.Mark))
		if r.Mask != ^uint32(0) {
			b.WriteString("/" + hex(r.Mask))
		}
	}
	if r.Iif != "" {
		b.WriteString(" iif " + r.Iif)
		if r.IifDetached {
			b.WriteString(" [detached]")
		}
	}
	if r.Oif != "" {
		b.WriteString(" oif " + r.Oif)
		if r.OifDetached {
			b.WriteString(" [detached]")
		}
	}
	if r.L3mdev {
		b.WriteString(" lookup [l3mdev-table]")
	}
	if r.HasUIDs {
		fmt.Fprintf(&b, " uidrange %d-%d", r.UIDs[0], r.UIDs[1])
	}
	if r.IPProto != 0 {
		b.WriteString(" ipproto " + r.IPProto.String())
	}
	ports(&b, "sport", r.Sport)
	ports(&b, "dport", r.Dport)
	if r.HasDSCP {
		fmt.Fprintf(&b, " dscp %d", r.DSCP)
	}
	if !r.L3mdev && r.Table != 0 && r.Action == actTable {
		b.WriteString(" lookup " + tableName(r.Table))
		if r.SuppressPrefixLen != -1 {
			fmt.Fprintf(&b, " suppress_prefixlength %d", r.SuppressPrefixLen)
		}
		if r.SuppressGroup != -1 {
			b.WriteString(" suppress_ifgroup " + groupName(r.SuppressGroup))
		}
	}
	if r.Realm != 0 {
		fmt.Fprintf(&b, " realms %d", r.Realm&0xffff)
	}
	switch r.Action {
	case actTable:
	case actGoto:
		fmt.Fprintf(&b, " goto %d", r.Goto)
		if r.GotoNowhere {
			b.WriteString(" [unresolved]")
		}
	case actNop:
		b.WriteString(" nop")
	case actBlackhole:
		b.WriteString(" blackhole")
	case actUnreachable:
		b.WriteString(" unreachable")
	case actProhibit:
		b.WriteString(" prohibit")
	default:
		fmt.Fprintf(&b, " action %d", r.Action)
	}
	return b.String()
}

// hex prints as C's %#x.
func hex(n uint32) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("0x%x", n)
}

// groupName is the name of an interface group in iproute2's own list.
func groupName(g int64) string {
	if g == 0 {
		return "default"
	}
	return strconv.FormatInt(g, 10)
}

func ruleAddr(p netip.Prefix) string {
	switch {
	case p.Bits() <= 0:
		return "all"
	default:
		return prefixText(p)
	}
}

func ports(b *strings.Builder, name string, r [2]uint16) {
	switch {
	case r == [2]uint16{}:
	case r[0] == r[1]:
		fmt.Fprintf(b, " %s %d", name, r[0])
	default:
		fmt.Fprintf(b, " %s %d-%d", name, r[0], r[1])
	}
}
