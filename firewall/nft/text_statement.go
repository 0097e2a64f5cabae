package nft

import (
	"fmt"
	"strings"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// statement writes what is neither load nor match.
func (w *writer) statement(name string, t *table, reg func(int) int) {
	switch name {
	case "counter":
		w.say("counter packets %d bytes %d", t.num64(2), t.num64(1))
	case "limit":
		w.say("%s", limitText(t))
	case "quota":
		w.say("%s", quotaText(t))
	case "connlimit":
		w.say("%s", connlimitText(t))
	case "last":
		if t.num(1) != 0 {
			w.say("last used %s", duration(ms(t.num64(2))))
		} else {
			w.say("last used never")
		}
	case "log":
		w.say("%s", logText(t))
	case "queue":
		w.say("%s", w.queueText(t, reg))
	case "reject":
		w.reject(t)
	case "nat":
		w.nat(t, reg)
	case "masq":
		w.translation("masquerade", "", t, reg, 0, 0, 2, 3, t.num(1), 0)
	case "redir":
		w.translation("redirect", "", t, reg, 0, 0, 1, 2, t.num(3), 0)
	case "tproxy":
		family := map[uint32]string{nfprotoIPv4: "ip ", nfprotoIPv6: "ip6 "}[t.num(1)]
		f := familyNumber(t.num(1))
		if w.t.table.Family != fw.TableInet {
			family = ""
		}
		w.say("tproxy %sto %s", family, w.target(reg(2), -1, reg(3), -1, f, 0))
	case "synproxy":
		out := "synproxy"
		if t.has(1) && be16(t.val(1)) != 0 || t.num(3)&1 != 0 {
			out += fmt.Sprintf(" mss %d", be16(t.val(1)))
		}
		if t.num(3)&2 != 0 {
			out += fmt.Sprintf(" wscale %d", u8(t.val(2)))
		}
		if t.num(3)&8 != 0 {
			out += " timestamp"
		}
		if t.num(3)&4 != 0 {
			out += " sack-perm"
		}
		w.say("%s", out)
	case "dup", "fwd":
		w.dup(name, t, reg)
	case "notrack":
		w.say("notrack")
	case "flow_offload":
		w.say("flow add @%s", cstring(t.val(1)))
	case "dynset":
		w.dynset(t, reg)
	case "objref":
		w.objref(t, reg)
	default:
		w.say("%s ?", name)
	}
}

var limitUnits = map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}

func limitText(t *table) string {
	out := "limit rate "
	if t.num(5)&1 != 0 {
		out += "over "
	}
	unit, ok := limitUnits[t.num64(2)]
	if !ok {
		unit = fmt.Sprintf("%d seconds", t.num64(2))
	}
	burst := uint64(t.num(3))
	if t.num(4) == 1 {
		n, size := byteUnit(t.num64(1))
		out += fmt.Sprintf("%d %s/%s", n, size, unit)
		if burst != 0 {
			n, size = byteUnit(burst)
			out += fmt.Sprintf(" burst %d %s", n, size)
		}
		return out
	}
	out += fmt.Sprintf("%d/%s", t.num64(1), unit)
	if burst != 0 && burst != 5 {
		out += fmt.Sprintf(" burst %d packets", burst)
	}
	return out
}

// byteUnit writes a number of bytes in the largest unit that divides it.
func byteUnit(n uint64) (uint64, string) {
	units := [...]string{"bytes", "kbytes", "mbytes"}
	i := 0
	for ; i < len(units)-1 && n != 0 && n%1024 == 0; i++ {
		n /= 1024
	}
	return n, units[i]
}

func quotaText(t *table) string {
	out := "quota "
	if t.num(2)&1 != 0 {
		out += "over "
	}
	n, unit := byteUnit(t.num64(1))
	out += fmt.Sprintf("%d %s", n, unit)
	if used := t.num64(4); used != 0 {
		n, unit := byteUnit(used)
		out += fmt.Sprintf(" used %d %s", n, unit)
	}
	return out
}

func connlimitText(t *table) string {
	over := ""
	if t.num(2)&1 != 0 {
		over = "over "
	}
	return fmt.Sprintf("ct count %s%d", over, t.num(1))
}

var logLevels = [...]string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit"}

func logText(t *table) string {
	out := "log"
	if t.has(2) {
		out += ` prefix "` + string(cstring(t.val(2))) + `"`
	}
	if t.has(1) {
		out += fmt.Sprintf(" group %d", be16(t.val(1)))
		if n := t.num(3); n != 0 {
			out += fmt.Sprintf(" snaplen %d", n)
		}
		if n := be16(t.val(4)); n != 0 {
			out += fmt.Sprintf(" queue-threshold %d", n)
		}
	}
	if t.has(5) && t.num(5) != 4 && int(t.num(5)) < len(logLevels) {
		out += " level " + logLevels[t.num(5)]
	}
	if f := t.num(6); f != 0 {
		if f&0x2f == 0x2f {
			return out + " flags all"
		}
		switch f & 3 {
		case 1:
			out += " flags tcp sequence"
		case 2:
			out += " flags tcp options"
		case 3:
			out += " flags tcp sequence,options"
		}
		if f&4 != 0 {
			out += " flags ip options"
		}
		if f&8 != 0 {
			out += " flags skuid"
		}
		if f&0x20 != 0 {
			out += " flags ether"
		}
	}
	return out
}

func (w *writer) queueText(t *table, reg func(int) int) string {
	out := "queue"
	var flags []string
	if f := be16(t.val(3)); f != 0 {
		if f&1 != 0 {
			flags = append(flags, "bypass")
		}
		if f&2 != 0 {
			flags = append(flags, "fanout")
		}
		out += " flags " + strings.Join(flags, ",")
	}
	if t.has(4) {
		text, _, _ := w.left(w.at(reg(4)), 2)
		return out + " to " + text
	}
	from, total := int(be16(t.val(1))), int(be16(t.val(2)))
	if total > 1 {
		return fmt.Sprintf("%s to %d-%d", out, from, from+total-1)
	}
	return fmt.Sprintf("%s to %d", out, from)
}

// reject writes reject; the family of an ICMP error implies that of the packet.
func (w *writer) reject(t *table) {
	code := uint64(u8(t.val(2)))
	name := func(k valueKind) string {
		if s, ok := valueNames[k][code]; ok {
			return s
		}
		return fmt.Sprint(code)
	}
	family := w.t.table.Family
	switch t.num(1) {
	case 1:
		if family == fw.TableIP || family == fw.TableIP6 {
			w.implied(needTransport)
		}
		w.say("reject with tcp reset")
	case 2:
		if code == 1 && family != fw.TableIP && family != fw.TableIP6 {
			w.say("reject")
		} else {
			w.say("reject with icmpx %s", name(valICMPXCode))
		}
	default:
		kind, proto, usual := valICMPCode, "icmp", uint64(3)
		if w.family == fw.IPv6 {
			kind, proto, usual = valICMPv6Code, "icmpv6", 4
		}
		w.implied(needNetwork)
		if code == usual && (family == fw.TableIP || family == fw.TableIP6) {
			w.say("reject")
		} else {
			w.say("reject with %s %s", proto, name(kind))
		}
	}
}

func (w *writer) nat(t *table, reg func(int) int) {
	name := [...]string{"snat", "dnat"}[t.num(1)&1]
	family := ""
	if w.t.table.Family == fw.TableInet {
		switch t.num(2) {
		case nfprotoIPv4:
			family = "ip"
		case nfprotoIPv6:
			family = "ip6"
		}
	}
	w.translation(name, family, t, reg, 3, 4, 5, 6, t.num(7), familyNumber(t.num(2)))
}

// translation writes a translation with its address, port and flags; the
// numbers are the attributes that hold them.
func (w *writer) translation(name, family string, t *table, reg func(int) int, addr, addrMax, port, portMax int, flags uint32, f fw.Family) {
	out := name
	if family != "" {
		out += " " + family
	}
	at := func(i int) int {
		if i == 0 {
			return -1
		}
		return reg(i)
	}
	if at(addr) >= 0 || at(port) >= 0 {
		if l, p := w.at(at(addr)), w.at(at(port)); family == "" && l != nil && l.isMap {
			// Of maps to more than one address nft prints the family (is_nat_addr_map).
			several := addrMax != 0 && at(addrMax) >= 0 && at(addrMax) != at(addr)
			if flags&fw.NATNetmap != 0 || several || p != nil && p.isMap && p.m == l.m {
				out += " " + f.String()
			}
		}
		if flags&fw.NATNetmap != 0 {
			out += " prefix"
		}
		out += " to " + w.target(at(addr), at(addrMax), at(port), at(portMax), f, flags)
	}
	var fs []string
	if flags&fw.NATRandom != 0 {
		fs = append(fs, "random")
	}
	if flags&fw.NATFullyRandom != 0 {
		fs = append(fs, "fully-random")
	}
	if flags&fw.NATPersistent != 0 {
		fs = append(fs, "persistent")
	}
	if fs != nil {
		out += " " + strings.Join(fs, ",")
	}
	w.say("%s", out)
}

// target writes an address and a port out of registers.
func (w *writer) target(addr, addrMax, port, portMax int, f fw.Family, flags uint32) string {
	kind, n := valIPv4, 4
	if f == fw.IPv6 {
		kind, n = valIPv6, 16
	}
	out := ""
	fromMap := false
	if addr >= 0 {
		l := w.at(addr)
		fromMap = l != nil && l.isMap
		out = w.right(l, kind, n, false)
		if addrMax >= 0 && addrMax != addr && !fromMap {
			if hi := w.at(addrMax); l != nil && hi != nil && l.konst != nil && hi.konst != nil {
				out = w.rangeText(kind, l.konst, hi.konst, false)
			} else {
				out += "-" + w.right(hi, kind, n, false)
			}
		}
	}
	if port >= 0 {
		l := w.at(port)
		if l != nil && l.isMap && fromMap && l.m == w.at(addr).m {
			return out // one map gives both
		}
		if kind == valIPv6 && addr >= 0 && !fromMap {
			out = "[" + out + "]"
		}
		out += ":" + w.right(l, valPort, 2, false)
		if portMax >= 0 && portMax != port {
			out += "-" + w.right(w.at(portMax), valPort, 2, false)
		}
	}
	return out
}

func (w *writer) dup(name string, t *table, reg func(int) int) {
	kind, n := valIPv4, 4
	if w.t.table.Family == fw.TableIP6 || t.has(3) && t.num(3) == nfprotoIPv6 {
		kind, n = valIPv6, 16
	}
	addr, dev := reg(1), reg(2)
	if name == "fwd" {
		addr, dev = reg(2), reg(1)
	}
	device := ""
	if dev >= 0 {
		device = w.right(w.at(dev), valIfIndex, 4, true)
	}
	switch {
	case name == "fwd" && addr >= 0:
		w.say("fwd %s to %s device %s", map[int]string{4: "ip", 16: "ip6"}[n], w.right(w.at(addr), kind, n, false), device)
	case addr >= 0 && device != "":
		w.say("%s to %s device %s", name, w.right(w.at(addr), kind, n, false), device)
	case addr >= 0:
		w.say("%s to %s", name, w.right(w.at(addr), kind, n, false))
	default:
		w.say("%s to %s", name, device)
	}
}

func (w *writer) dynset(t *table, reg func(int) int) {
	s := w.t.set(cstring(t.val(1)))
	if s == nil || t.num(3) > 2 {
		w.say("dynset ?")
		return
	}
	key, kinds := w.keyText(reg(4), s)
	out := [...]string{"add", "update", "delete"}[t.num(3)] + " " + w.setText(s, kinds, false) + " { " + key
	if t.has(6) && t.num64(6) != 0 {
		out += " timeout " + duration(ms(t.num64(6)))
	}
	add := func(b []byte) {
		name, data := nameAndData(b)
		var et table
		et.parse(data, 11)
		switch string(name) {
		case "counter":
			out += " counter"
			if et.num64(1)|et.num64(2) != 0 {
				out += fmt.Sprintf(" packets %d bytes %d", et.num64(2), et.num64(1))
			}
		case "limit":
			out += " " + limitText(&et)
		case "quota":
			out += " " + quotaText(&et)
		case "connlimit":
			out += " " + connlimitText(&et)
		case "last":
			out += " last"
		default:
			out += " " + string(name) + " ?"
		}
	}
	if t.has(7) {
		add(t.val(7))
	}
	for a := walk(t.val(10)); a.next(); {
		add(a.val)
	}
	if t.has(5) {
		m := left{isMap: true, m: s}
		out += " : " + w.right(w.at(reg(5)), m.dataKind(), int(s.dataLen), m.dataKind().hostOrder())
	}
	w.say("%s }", out)
}

var objectTexts = map[uint32]string{
	objectCounter: "counter name", objectQuota: "quota name", objectCTHelper: "ct helper set", objectLimit: "limit name", objectConnlimit: "ct count name",
	objectTunnel: "tunnel name", objectCTTimeout: "ct timeout set", objectSecmark: "meta secmark set", objectCTExpect: "ct expectation set",
	objectSynproxy: "synproxy name",
}

func (w *writer) objref(t *table, reg func(int) int) {
	if t.has(3) {
		s := w.t.set(cstring(t.val(4)))
		if s == nil {
			w.say("objref ?")
			return
		}
		key, kinds := w.keyText(reg(3), s)
		w.say("%s %s map %s", objectTexts[s.objType], key, w.setText(s, kinds, false))
		return
	}
	name := objectTexts[t.num(1)]
	if name == "" {
		name = "object"
	}
	w.say("%s %q", name, string(cstring(t.val(2))))
}
