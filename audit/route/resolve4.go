package route

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

// errno is the result of a failed lookup, 0 for success. EAGAIN lets the next
// routing rule be tried.
type errno = unix.Errno

// typeError is fib_props[type].error and fib6_prop.
func typeError(typ uint8) errno {
	switch typ {
	case typeBlackhole:
		return unix.EINVAL
	case typeUnreachable:
		return unix.EHOSTUNREACH
	case typeProhibit:
		return unix.EACCES
	case typeThrow:
		return unix.EAGAIN
	case typeUnicast, typeLocal, typeBroadcast, typeAnycast, typeMulticast, unix.RTN_UNSPEC:
		return 0
	default: // RTN_NAT, RTN_XRESOLVE
		return unix.EINVAL
	}
}

// legacyTOS is INET_DSCP_LEGACY_TOS_MASK: what of the TOS byte IPv4 routing compares.
const legacyTOS = 0x1c

// resolve4 is fib_table_lookup from a leaf upwards.
func (fb *fib) resolve4(n int32, k resolveKey) result {
	// A nexthop object without a usable hop gives up the whole leaf, that is
	// all prefixes with the same first address.
	var skip *firewall.Value
	for ; n >= 0; n = fb.nodes[n].parent {
		nd := &fb.nodes[n]
		if skip != nil && nd.lo == *skip {
			continue
		}
	routes:
		for _, r := range nd.routes {
			if r.TOS != 0 && r.TOS != k.tos&legacyTOS {
				continue
			}
			if err := typeError(r.Type); err != 0 {
				return result{err: err, route: r}
			}
			if r.Flags&rtnhDead != 0 && len(r.Hops) > 1 {
				continue
			}
			if r.hidden != "" {
				return result{unknown: fmt.Sprintf("route %s: %s", r.Dst, r.hidden)}
			}
			for i, h := range r.Hops {
				if h.alive(k.ignoreLinkstate) && (k.oif == 0 || h.Link.Index == k.oif) {
					return result{route: r, hop: i}
				}
			}
			if r.NexthopID != 0 {
				skip = &nd.lo
				break routes
			}
		}
	}
	return result{err: unix.EAGAIN}
}

// alive is fib_lookup_good_nhc without the interface. The kernel dumps a hop
// whose carrier is gone as dead only where ignore_routes_with_linkdown says so.
func (h *Hop) alive(ignoreLinkstate bool) bool {
	if h.Flags&rtnhDead == 0 {
		return true
	}
	return ignoreLinkstate && h.Flags&rtnhLinkdown != 0 && h.Link.Up()
}
