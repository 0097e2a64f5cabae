package xtables

import (
	"fmt"
	"strings"

	"github.com/hostaudit/hostaudit/firewall"
)

var rejectNames = [...]string{
	"icmp-net-unreachable", "icmp-host-unreachable", "icmp-proto-unreachable", "icmp-port-unreachable", "echo-reply",
	"icmp-net-prohibited", "icmp-host-prohibited", "tcp-reset", "icmp-admin-prohibited",
}

var rejectNames6 = [...]string{
	"icmp6-no-route", "icmp6-adm-prohibited", "icmp6-not-neighbor", "icmp6-addr-unreachable", "icmp6-port-unreachable",
	"echo-reply", "tcp-reset", "icmp6-policy-fail", "icmp6-reject-route",
}

func saveReject(p *printer, b []byte) {
	list := rejectNames[:]
	if p.v6 {
		list = rejectNames6[:]
	}
	p.word("--reject-with", word(uint8(min(u32(b, 0), 255)), list...))
}

func saveNFQueue0(p *printer, b []byte) { p.number(false, "--queue-num", uint64(u16(b, 0))) }

func saveNFQueue1(p *printer, b []byte) {
	first, total := u16(b, 0), u16(b, 2)
	if total > 1 {
		p.f(" --queue-balance %d:%d", first, uint32(first)+uint32(total)-1)
		return
	}
	p.number(false, "--queue-num", uint64(first))
}

func saveNFQueue2(p *printer, b []byte) {
	saveNFQueue1(p, b)
	p.flagWords(uint32(u16(b, 4)), "--queue-bypass")
}

func saveNFQueue3(p *printer, b []byte) {
	saveNFQueue1(p, b)
	p.flagWords(uint32(u16(b, 4)), "--queue-bypass", "--queue-cpu-fanout")
}

func saveSynproxy(p *printer, b []byte) {
	opts := b[0]
	p.flagWords(uint32(opts), "", "", "--sack-perm", "--timestamp")
	if opts&2 != 0 {
		p.f(" --wscale %d", b[1])
	}
	if opts&1 != 0 {
		p.f(" --mss %d", u16(b, 2))
	}
	p.flagWords(uint32(opts), "", "", "", "", "--ecn")
}

func saveTProxy0(p *printer, b []byte) { p.tproxy(b, p.ip(b[8:12]), be16(b, 12)) }

func saveTProxy1(p *printer, b []byte) { p.tproxy(b, p.addrAt(b, 8), be16(b, 24)) }

func (p *printer) tproxy(b []byte, addr string, port uint16) {
	p.f(" --on-port %d --on-ip %s --tproxy-mark 0x%x/0x%x", port, addr, u32(b, 4), u32(b, 0))
}

// natText prints a range after opt; with ports alone the colon is left out
// where portsOnly says so.
func (p *printer) natText(opt string, r natRange, portsOnly bool) {
	f := firewall.IPv4
	if p.v6 {
		f = firewall.IPv6
	}
	text := func(v firewall.Value) string { return p.ip(v.AppendBytes(nil, f.AddrLen())) }
	var s string
	if r.flags&natMapIPs != 0 {
		s = text(r.addrMin)
		if r.addrMax != r.addrMin {
			s += "-" + text(r.addrMax)
		}
		if p.v6 && r.flags&natProtoSpecified != 0 {
			s = "[" + s + "]"
		}
	}
	if r.flags&natProtoSpecified != 0 {
		if s != "" || !portsOnly {
			s += ":"
		}
		s += dec(r.portMin)
		if r.portMax != r.portMin {
			s += "-" + dec(r.portMax)
		}
		if r.flags&firewall.NATPortOffset != 0 {
			s += "/" + dec(r.portBase)
		}
	}
	if s != "" {
		p.word(opt, s)
	}
	for _, o := range []struct {
		bit uint32
		opt string
	}{{firewall.NATRandom, "--random"}, {firewall.NATFullyRandom, "--random-fully"}, {firewall.NATPersistent, "--persistent"}} {
		if r.flags&o.bit != 0 {
			p.word(o.opt)
		}
	}
}

func (p *printer) context() *Context {
	if p.v6 {
		return &Context{Family: firewall.TableIP6}
	}
	return &Context{Family: firewall.TableIP}
}

func saveNAT0(opt string) func(*printer, []byte) {
	return func(p *printer, b []byte) { p.natText(opt, natRange4(b), false) }
}

func saveNAT1(opt string) func(*printer, []byte) {
	return func(p *printer, b []byte) { p.natText(opt, natRange1(p.context(), b), false) }
}

func saveNAT2(opt string) func(*printer, []byte) {
	return func(p *printer, b []byte) {
		r := natRange1(p.context(), b)
		r.portBase = be16(b, 40)
		p.natText(opt, r, false)
	}
}

func saveToPorts(p *printer, b []byte) {
	if r, ok := familyRange(p.context(), b); ok {
		p.natText("--to-ports", r, true)
	}
}

func saveNetmap(p *printer, b []byte) {
	r, ok := familyRange(p.context(), b)
	if !ok {
		return
	}
	n := p.addrLen()
	mask := r.addrMin.Xor(r.addrMax).Not(n).AppendBytes(nil, n)
	p.word("--to", p.ip(r.addrMin.AppendBytes(nil, n))+"/"+p.maskText(mask))
}

func saveNPT(p *printer, b []byte) {
	for i, opt := range []string{"--src-pfx", "--dst-pfx"} {
		addr, n := b[16*i:16*i+16], b[32+i]
		if n != 0 || !firewall.Bytes(addr).IsZero() {
			p.f(" %s %s/%d", opt, ip6Text([16]byte(addr)), n)
		}
	}
}

func saveClusterIP(p *printer, b []byte) {
	if len(b) < 56 || u32(b, 0)&1 == 0 {
		return
	}
	p.f(" --new --hashmode %s --clustermac %s --total-nodes %d --local-node %d --hash-init %d",
		word(uint8(min(u32(b, 48), 255)), "sourceip", "sourceip-sourceport", "sourceip-sourceport-destport"),
		strings.ToUpper(macText(b[4:])), u16(b, 10), u16(b, 14), u32(b, 52))
}

func ctAlias(e Ext) string {
	if len(e.Info) >= 2 && u16(e.Info, 0)&ctNotrackAlias != 0 && e.Rev == 2 {
		return "NOTRACK"
	}
	return e.Name
}

var ctEvents = []string{"new", "related", "destroy", "reply", "assured", "protoinfo", "helper", "mark", "natseqinfo", "secmark"}

func saveCT0(p *printer, b []byte) { p.ct(b, "") }

func saveCT1(p *printer, b []byte) { p.ct(b, cstring(b[28:60])) }

func (p *printer) ct(b []byte, timeout string) {
	flags, zone := u16(b, 0), u16(b, 2)
	if flags&ctNotrackAlias != 0 {
		return
	}
	if flags&ctNotrack != 0 {
		p.word("--notrack")
	}
	if h := cstring(b[12:28]); h != "" {
		p.word("--helper", h)
	}
	if timeout != "" {
		p.word("--timeout", timeout)
	}
	if e := u32(b, 4); e != 0 {
		p.word("--ctevents", names(uint64(e), ctEvents))
	}
	if e := u32(b, 8); e != 0 {
		p.word("--expevents", names(uint64(e), ctEvents[:1]))
	}
	if flags&ctZoneMark == 0 && zone == 0 {
		return
	}
	opt := "--zone"
	switch flags & (ctZoneDirOrig | ctZoneDirRepl) {
	case ctZoneDirOrig:
		opt += "-orig"
	case ctZoneDirRepl:
		opt += "-reply"
	}
	if flags&ctZoneMark != 0 {
		p.word(opt, "mark")
		return
	}
	p.word(opt, dec(zone))
}

func saveConnmark1(p *printer, b []byte) { p.connmark(b, b[12]) }

func saveConnmark2(p *printer, b []byte) {
	p.connmark(b, b[14])
	if b[14] <= connmarkRestore && b[13] != 0 {
		p.f(" --%s %d", word(b[12], "left-shift-mark", "right-shift-mark"), b[13])
	}
}

func (p *printer) connmark(b []byte, mode uint8) {
	switch mode {
	case connmarkSet:
		p.f(" --set-xmark 0x%x/0x%x", u32(b, 0), u32(b, 4))
	case connmarkSave, connmarkRestore:
		p.f(" %s --nfmask 0x%x --ctmask 0x%x", word(mode, "", "--save-mark", "--restore-mark"), u32(b, 8), u32(b, 4))
	default:
		p.f(" [mode %d]", mode)
	}
}

func saveConnsecmark(p *printer, b []byte) { p.word("--" + word(b[0], "none", "save", "restore")) }

func saveMark0(p *printer, b []byte) { p.f(" --set-mark 0x%x", u32(b, 0)) }

func saveMark1(p *printer, b []byte) {
	p.f(" %s 0x%x", word(b[8], "--set-mark", "--and-mark", "--or-mark"), u64(b, 0))
}

func saveMark2(p *printer, b []byte) { p.f(" --set-xmark 0x%x/0x%x", u32(b, 0), u32(b, 4)) }

// hmarkOptions are in the order of their printing: bit, option, format.
func saveHMark(p *printer, b []byte) {
	flags := u32(b, 40)
	item := func(bit int, format string, v any) {
		if flags&(1<<bit) != 0 {
			p.f(format, v)
		}
	}
	prefix := func(off int) string {
		n, ok := prefixLen(firewall.Bytes(b[off:off+p.addrLen()]), p.addrLen())
		if !ok {
			return "-1"
		}
		return fmt.Sprint(n)
	}
	item(0, " --hmark-src-prefix %s", prefix(0))
	item(1, " --hmark-dst-prefix %s", prefix(16))
	be32 := func(off int) uint32 { return uint32(be16(b, off))<<16 | uint32(be16(b, off+2)) }
	item(6, " --hmark-sport-mask 0x%04x", be16(b, 32))
	item(7, " --hmark-dport-mask 0x%04x", be16(b, 34))
	item(3, " --hmark-spi-mask 0x%08x", be32(32))
	item(4, " --hmark-sport 0x%04x", be16(b, 36))
	item(5, " --hmark-dport 0x%04x", be16(b, 38))
	item(2, " --hmark-spi 0x%08x", be32(36))
	item(8, " --hmark-proto-mask 0x%02x", u16(b, 44))
	item(9, " --hmark-rnd 0x%08x", u32(b, 48))
	item(10, " --hmark-mod %d", u32(b, 52))
	if len(b) >= 60 {
		item(11, " --hmark-offset %d", u32(b, 56))
	}
	item(12, " --hmark-tuple %s", "ct")
}

func saveSecmark0(p *printer, b []byte) { p.word("--selctx", cstring(b[8:])) }

func saveSecmark1(p *printer, b []byte) { p.word("--selctx", cstring(b[1:257])) }

func saveClassify(p *printer, b []byte) {
	v := u32(b, 0)
	p.f(" --set-class %04x:%04x", v>>16, v&0xffff)
}

func (p *printer) targetSet(opt string, s setInfo) {
	if s.index != invalidSet {
		p.set(opt, s)
	}
}

func saveSETTarget0(p *printer, b []byte) {
	p.targetSet("--add-set", newSetInfo0(b))
	p.targetSet("--del-set", newSetInfo0(b[32:]))
}

func saveSETTarget1(p *printer, b []byte) {
	p.targetSet("--add-set", newSetInfo(b))
	p.targetSet("--del-set", newSetInfo(b[4:]))
}

func saveSETTarget2(p *printer, b []byte) { p.setUpdate(b, u32(b, 8), u32(b, 12)) }

func saveSETTarget3(p *printer, b []byte) {
	flags := u32(b, 12)
	p.setUpdate(b, flags, u32(b, 16))
	p.targetSet("--map-set", newSetInfo(b[8:]))
	p.flagWords(flags, "", "", "", "", "", "", "", "", "--map-mark", "--map-prio", "--map-queue")
}

func (p *printer) setUpdate(b []byte, flags, timeout uint32) {
	p.targetSet("--add-set", newSetInfo(b))
	p.flagWords(flags, "--exist")
	if timeout != 0xffffffff {
		p.f(" --timeout %d", timeout)
	}
	p.targetSet("--del-set", newSetInfo(b[4:]))
}

func saveTTLTarget(p *printer, b []byte) {
	p.number(false, "--ttl-"+word(b[0], "set", "inc", "dec"), uint64(b[1]))
}

func saveHLTarget(p *printer, b []byte) {
	p.number(false, "--hl-"+word(b[0], "set", "inc", "dec"), uint64(b[1]))
}

func saveTCPMSSTarget(p *printer, b []byte) {
	if v := u16(b, 0); v != 0xffff {
		p.number(false, "--set-mss", uint64(v))
		return
	}
	p.word("--clamp-mss-to-pmtu")
}

func saveTCPOptStrip(p *printer, b []byte) {
	var list []string
	for i := range 256 {
		if u32(b, 4*(i/32))&(1<<(i%32)) != 0 {
			list = append(list, fmt.Sprint(i))
		}
	}
	if list != nil {
		p.word("--strip-options", strings.Join(list, ","))
	}
}

func saveDSCPTarget(p *printer, b []byte) { p.f(" --set-dscp 0x%02x", b[0]) }

func saveTOSTarget(p *printer, b []byte) { p.f(" --set-tos 0x%02x/0x%02x", b[0], b[1]) }

func saveECNTarget(p *printer, b []byte) {
	op, tcp := b[0], policyBits(b[2])
	if op == 0x30 && tcp&3 == 0 {
		p.word("--ecn-tcp-remove")
		return
	}
	if op&0x10 != 0 {
		p.f(" --ecn-tcp-ece %d", tcp&1)
	}
	if op&0x20 != 0 {
		p.f(" --ecn-tcp-cwr %d", tcp>>1&1)
	}
	if op&0x01 != 0 {
		p.f(" --ecn-ip-ect %d", b[1])
	}
}

func saveChecksum(p *printer, b []byte) { p.flagWords(uint32(b[0]), "--checksum-fill") }

func saveLog(p *printer, b []byte) {
	if s := cstring(b[2:32]); s != "" {
		p.word("--log-prefix")
		p.text(s)
	}
	if b[0] != 4 {
		p.f(" --log-level %d", b[0])
	}
	p.flagWords(uint32(b[1]), "--log-tcp-sequence", "--log-tcp-options", "--log-ip-options", "--log-uid", "", "--log-macdecode")
}

func saveNFLog(p *printer, b []byte) {
	if s := cstring(b[12:76]); s != "" {
		p.word("--nflog-prefix")
		p.text(s)
	}
	if g := u16(b, 4); g != 0 {
		p.f(" --nflog-group %d", g)
	}
	switch n := u32(b, 0); {
	case u16(b, 8)&1 != 0:
		p.f(" --nflog-size %d", n)
	case n != 0:
		p.f(" --nflog-range %d", n)
	}
	if n := u16(b, 6); n != 0 {
		p.f(" --nflog-threshold %d", n)
	}
}

func saveAudit(p *printer, b []byte) { p.word("--type", word(b[0], "accept", "drop", "reject")) }

func saveLED(p *printer, b []byte) {
	p.b = append(p.b, ` --led-trigger-id "`...)
	for _, c := range []byte(strings.TrimPrefix(cstring(b[:27]), "netfilter-")) {
		if c == '"' || c == '\\' {
			p.b = append(p.b, '\\')
		}
		p.b = append(p.b, c)
	}
	p.b = append(p.b, '"')
	switch d := int32(u32(b, 28)); {
	case d > 0:
		p.f(" --led-delay %d", d)
	case d == -1:
		p.word("--led-delay", "inf")
	}
	if b[27] != 0 {
		p.word("--led-always-blink")
	}
}

func saveIdletimer0(p *printer, b []byte) {
	p.f(" --timeout %d --label %s", u32(b, 0), cstring(b[4:32]))
}

func saveIdletimer1(p *printer, b []byte) {
	saveIdletimer0(p, b)
	p.flagWords(uint32(b[33]), "--alarm")
}

func saveRateestTarget(p *printer, b []byte) {
	interval := (uint32(1000000) << uint(int8(b[16])+2)) / 4
	p.word("--rateest-name", cstring(b[:16]), "--rateest-interval", timeText(interval), "--rateest-ewmalog", timeText(interval*(1<<b[17])))
}

// timeText prints microseconds.
func timeText(us uint32) string {
	switch f := float64(us); {
	case us >= 1000000:
		return fmt.Sprintf("%.1fs", f/1000000)
	case us >= 1000:
		return fmt.Sprintf("%.1fms", f/1000)
	default:
		return fmt.Sprintf("%dus", us)
	}
}

func saveTEE(p *printer, b []byte) {
	p.word("--gateway", p.addrAt(b, 0))
	if s := cstring(b[16:32]); s != "" {
		p.word("--oif", s)
	}
}
