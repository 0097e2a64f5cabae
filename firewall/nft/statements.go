package nft

import (
	"fmt"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// verdict lowers verdict data (nft_verdict_init).
func (r *run) verdict(b []byte) {
	v, ok := r.d.verdict(r.t, b)
	if !ok {
		r.opaque("verdict", "a verdict that the model does not know")
		return
	}
	switch v.Kind {
	case fw.Continue:
		// NFT_CONTINUE: the next expression is next.
	case verdictKindBreak:
		r.emitNever()
	default:
		r.emit(v)
	}
}

// lookup is nft_lookup_eval: a set, a map into a register, or a verdict map.
func (r *run) lookup(t *table) {
	flags := t.num(5)
	if !t.has(1) || !t.has(2) || flags > 1 {
		r.incomplete("lookup")
		return
	}
	s := r.t.set(cstring(t.val(1)))
	at, ok := t.reg(2, 1)
	if s == nil || !ok {
		r.incomplete("lookup")
		return
	}
	keys, why, known := r.keys(at, s)
	name := "@" + s.set.Name
	switch {
	case !t.has(3) && known:
		l := &fw.Lookup{Keys: keys, Set: s.set, Invert: flags == 1}
		r.emit(l)
		r.g.learnSet(l)
	case !t.has(3):
		r.unsure("lookup", "a look-up in "+name+" of "+why)
	case t.num(3) == 0 && known:
		r.emit(&fw.VerdictMap{Keys: keys, Map: s.set})
	case t.num(3) == 0:
		r.opaque("lookup", "a look-up in the verdict map "+name+" of "+why)
	default:
		dst, ok := t.reg(3, max(int(s.dataLen), 1))
		if !ok {
			r.incomplete("lookup")
			return
		}
		n := max(int(s.dataLen), 1)
		if !known {
			r.unsure("lookup", "a look-up in the map "+name+" of "+why)
			r.m.forget(dst, n, "what the map "+name+" holds for "+why)
			return
		}
		o := r.m.add(origin{kind: originMap, keys: keys, set: s.set, length: n, pending: true})
		r.m.store(dst, n, o, 0)
	}
}

func (r *run) counter(t *table) {
	if r.packets < 0 {
		r.packets = 0
	}
	r.packets += int64(t.num64(2))
	r.emit(inertCounter)
}

var (
	inertCounter = &fw.Inert{Name: "counter"}
	inertLog     = &fw.Inert{Name: "log"}
	inertLast    = &fw.Inert{Name: "last"}
	inertTrace   = &fw.Inert{Name: "nftrace"}
)

func (r *run) log(*table)      { r.emit(inertLog) }
func (r *run) lastSeen(*table) { r.emit(inertLast) }

// rateOf tells a limit in words.
func rateOf(t *table) string {
	unit := map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}[t.num64(2)]
	if unit == "" {
		unit = fmt.Sprintf("%d seconds", t.num64(2))
	}
	what := ""
	if t.num(4) == 1 {
		what = " bytes"
	}
	return fmt.Sprintf("a rate limit of %d%s/%s", t.num64(1), what, unit)
}

func (r *run) limit(t *table)     { r.unsure("limit", rateOf(t)) }
func (r *run) quota(t *table)     { r.unsure("quota", fmt.Sprintf("a quota of %d bytes", t.num64(1))) }
func (r *run) connlimit(t *table) { r.unsure("connlimit", connlimitOf(t)) }

func connlimitOf(t *table) string {
	return fmt.Sprintf("a limit of %d connections at a time", t.num(1))
}

// queue is nft_queue_eval.
func (r *run) queue(t *table) {
	flags := t.num(3)
	if t.has(3) {
		flags = uint32(be16(t.val(3)))
	}
	q := &fw.QueueTo{Bypass: flags&1 != 0}
	switch {
	case t.has(4):
		q.To = 0xffff
		if at, ok := t.reg(4, 2); ok {
			r.source(at, 2, true)
		}
	default:
		q.From = be16(t.val(1))
		total := max(be16(t.val(2)), 1)
		q.To = uint16(min(int(q.From)+int(total)-1, 0xffff))
	}
	r.emit(q)
}

// reject is nft_reject_*_eval.
func (r *run) reject(t *table) {
	code := u8(t.val(2))
	j := &fw.Reject{V4Type: 3, V6Type: 1, V4Code: code, V6Code: code}
	switch t.num(1) {
	case 0: // NFT_REJECT_ICMP_UNREACH: the code is that of the family
	case 1:
		*j = fw.Reject{TCPReset: true}
	case 2: // NFT_REJECT_ICMPX_UNREACH (nft_reject_icmp_code, nft_reject_icmpv6_code)
		v4 := [...]uint8{0, 3, 1, 13}
		v6 := [...]uint8{0, 4, 3, 1}
		if int(code) >= len(v4) {
			r.incomplete("reject")
			return
		}
		j.V4Code, j.V6Code = v4[code], v6[code]
	default:
		r.incomplete("reject")
		return
	}
	r.emit(j)
}

// synproxy is nft_synproxy_eval; other packets than TCP break.
func (r *run) synproxy(*table) {
	r.requireProto(fw.TCP)
	r.emit(&fw.SynProxy{})
}

// dup is nft_dup_*_eval: a copy goes elsewhere, the packet goes on.
func (r *run) dup(*table) {
	r.emit(&fw.Inert{Name: "dup", Detail: "sends a copy of the packet elsewhere"})
}

// fwd is nft_fwd_netdev_eval: the packet leaves by another device. With an
// address the other family breaks.
func (r *run) fwd(t *table) {
	if t.has(2) {
		if f := familyNumber(t.num(3)); f != 0 {
			r.requireFamily(f)
		}
	}
	r.emit(&fw.Verdict{Kind: fw.Stolen})
}

func (r *run) notrack(*table) { r.emit(&fw.Notrack{}) }

// flowOffload is nft_flow_offload_eval. It breaks for packets of a flow that
// is not confirmed yet and for others it cannot take; what follows it depends.
func (r *run) flowOffload(*table) {
	if r.last {
		r.emit(&fw.Inert{Name: "flow add"})
		return
	}
	r.unsure("flow add", "whether the flow goes into the flowtable")
}
