package route

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

// decodeProbe reads the answer to localRoutesProbe.
func (t *Table) decodeProbe(c *Capture) {
	b, ok := c.Blobs[blobProbe]
	switch {
	case !ok || b.Err != "":
		t.localRoutes = unknown
	case string(b.Data) == "EINVAL":
		t.localRoutes = yes
	default:
		t.localRoutes = no
	}
}

// localRoutesProbe is the body of an RTM_GETROUTE whose answer tells
// fib_has_custom_local_routes: a packet from a source that only the full check
// refuses, to an address of this host. ok is false where no source is treated
// differently, so that it does not matter.
func (t *Table) localRoutesProbe() (body []byte, ok bool) {
	if t.v4.customRules != no || t.realms || t.v4.fibs[tableLocal] == nil {
		return nil, false
	}
	never := zeronet4.Union(multicast4).Union(lbcast4).Union(loopback4)
	var dst *Addr
	for _, a := range t.Addrs {
		if a.Family == firewall.IPv4 && !never.Contains(a.value()) && t.isLocal4(a.value()) {
			dst = a
		}
	}
	if dst == nil {
		return nil, false
	}
	for _, l := range t.Links {
		if l.conf4 == nil || l.Loopback() {
			continue
		}
		q := &query{Key: Key{Family: firewall.IPv4}, in: l, dst: dst.value()}
		local, _, _ := t.or4(l, conf4AcceptLocal, "accept_local")
		if max(conf(l.conf4, conf4RPFilter), t.all4["rp_filter"]) != 0 || local != no || t.unread4["rp_filter"] != "" {
			continue
		}
		for _, r := range t.v4.fibs[tableLocal].routes {
			src := firewall.AddrValue(r.Dst.Addr())
			if never.Contains(src) {
				continue
			}
			one := firewall.Single(src)
			full, quick := t.fullCheck(q, one, q.dst, 0, false, 0), t.quickCheck(q, one, false)
			if full[0].verdict != nil && full[0].verdict.Kind == Drop && quick[0].verdict == nil {
				return getRoute(src, q.dst, l.Index), true
			}
		}
	}
	return nil, false
}

func (t *Table) isLocal4(v firewall.Value) bool {
	p := t.fibLookup(&flow{Key: Key{Family: firewall.IPv4}, iif: loopbackIndex, varies: varyDst}, firewall.Single(v))
	return p[0].unknown == "" && p[0].err == 0 && p[0].route.Type == typeLocal
}

// getRoute asks which route a packet from src to dst takes that comes in by a link.
func getRoute(src, dst firewall.Value, iif int) []byte {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1], b[2] = unix.AF_INET, 32, 32
	b = appendAttr(b, unix.RTA_DST, dst.AppendBytes(nil, 4))
	b = appendAttr(b, unix.RTA_SRC, src.AppendBytes(nil, 4))
	return appendAttr(b, unix.RTA_IIF, binary.NativeEndian.AppendUint32(nil, uint32(iif)))
}
