package route

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

// Rule is a routing rule (`ip rule`).
type Rule struct {
	Family   firewall.Family
	Pref     uint32
	Action   uint8 // FR_ACT_*: 1 to table, 2 goto, 3 nop, 6 blackhole, 7 unreachable, 8 prohibit
	Invert   bool
	Src, Dst netip.Prefix // Bits 0: all
	TOS      uint8
	// DSCP is compared in full where HasDSCP (`dscp`), TOS only as IPv4 always did.
	DSCP, DSCPMask uint8
	HasDSCP        bool
	Mark, Mask     uint32
	Iif, Oif       string
	// IifDetached and OifDetached: no interface has that name now, so that the
	// rule matches no packet.
	IifDetached, OifDetached bool
	L3mdev                   bool
	UIDs                     [2]uint32
	HasUIDs                  bool
	IPProto                  firewall.Proto
	Sport, Dport             [2]uint16 // 0-0: all
	SportMask, DportMask     uint16    // 0: compare as ranges
	Table                    uint32
	Goto                     uint32
	GotoNowhere              bool // no rule has the preference it goes to
	SuppressPrefixLen        int  // -1: none
	SuppressGroup            int64
	Protocol                 uint8
	FindSource               bool // IPv6: compare the source that would be chosen
	Realm                    uint32
	// Opaque names what the model does not know of the rule; "" for nothing.
	Opaque string
}

// The actions of a rule (uapi/linux/fib_rules.h FR_ACT_*).
const (
	actTable       = 1
	actGoto        = 2
	actNop         = 3
	actBlackhole   = 6
	actUnreachable = 7
	actProhibit    = 8
)

// Flags of struct fib_rule_hdr.
const (
	ruleInvert      = 0x2
	ruleUnresolved  = 0x4
	ruleIifDetached = 0x8
	ruleOifDetached = 0x10
	ruleFindSaddr   = 0x10000
)

// Attributes of a rule (uapi/linux/fib_rules.h FRA_*); those after dport-range
// came with 6.14 and 6.15.
const (
	fraDst = 1 + iota
	fraSrc
	fraIif
	fraGoto
	_
	fraPriority
	_
	_
	_
	fraMark
	fraFlow
	fraTunID
	fraSuppressGroup
	fraSuppressPrefixLen
	fraTable
	fraMask
	fraOif
	fraPad
	fraL3mdev
	fraUIDs
	fraProtocol
	fraIPProto
	fraSport
	fraDport
	fraDSCP
	fraFlowLabel
	fraFlowLabelMask
	fraSportMask
	fraDportMask
	fraDSCPMask
)

func decodeRules(c *Capture, source string) ([]*Rule, error) {
	var out []*Rule
	order := c.order()
	err := messages(source, order, c.Blobs[source].Data, unix.RTM_NEWRULE, sizeofRuleMsg, func(m message) error {
		f, ok := familyOf(m.fixed[0])
		if !ok {
			return nil
		}
		r := &Rule{Family: f, TOS: m.fixed[3], Table: uint32(m.fixed[4]), Action: m.fixed[7], SuppressPrefixLen: -1, SuppressGroup: -1, DSCPMask: 0x3f}
		if err := r.decode(m); err != nil {
			return fmt.Errorf("rule %d: %w", r.Pref, err)
		}
		out = append(out, r)
		return nil
	})
	return out, err
}

func (r *Rule) decode(m message) error {
	w := 8 * r.Family.AddrLen()
	dstLen, srcLen := int(m.fixed[1]), int(m.fixed[2])
	if dstLen > w || srcLen > w {
		return fmt.Errorf("prefix lengths %d and %d", dstLen, srcLen)
	}
	flags := m.order.Uint32(m.fixed[8:])
	r.Invert = flags&ruleInvert != 0
	r.IifDetached = flags&ruleIifDetached != 0
	r.OifDetached = flags&ruleOifDetached != 0
	r.GotoNowhere = flags&ruleUnresolved != 0
	r.FindSource = flags&ruleFindSaddr != 0
	var src, dst firewall.Value
	for _, a := range m.attrs {
		if err := r.attribute(m, a, &src, &dst); err != nil {
			return err
		}
	}
	r.Dst = netip.PrefixFrom(dst.Addr(r.Family), dstLen).Masked()
	r.Src = netip.PrefixFrom(src.Addr(r.Family), srcLen).Masked()
	switch r.Action {
	case actTable, actGoto, actNop, actBlackhole, actUnreachable, actProhibit:
	default:
		r.opaque(fmt.Sprintf("action %d", r.Action))
	}
	return nil
}

func (r *Rule) opaque(what string) {
	if r.Opaque != "" {
		r.Opaque += ", "
	}
	r.Opaque += what
}

func (r *Rule) attribute(m message, a attr, src, dst *firewall.Value) (err error) {
	var n uint32
	switch a.typ {
	case fraDst:
		*dst, err = a.addr(r.Family)
	case fraSrc:
		*src, err = a.addr(r.Family)
	case fraIif:
		r.Iif = a.text()
	case fraOif:
		r.Oif = a.text()
	case fraGoto:
		r.Goto, err = a.u32(m.order)
	case fraPriority:
		r.Pref, err = a.u32(m.order)
	case fraMark:
		r.Mark, err = a.u32(m.order)
	case fraMask:
		r.Mask, err = a.u32(m.order)
	case fraFlow:
		r.Realm, err = a.u32(m.order)
	case fraTunID:
		if len(a.value) != 8 || m.order.Uint64(a.value) != 0 {
			r.opaque("tun_id")
		}
	case fraSuppressGroup:
		n, err = a.u32(m.order)
		r.SuppressGroup = int64(int32(n))
	case fraSuppressPrefixLen:
		n, err = a.u32(m.order)
		r.SuppressPrefixLen = int(int32(n))
	case fraTable:
		r.Table, err = a.u32(m.order)
	case fraPad:
	case fraL3mdev:
		var v uint8
		v, err = a.u8()
		r.L3mdev = v != 0
	case fraUIDs:
		if len(a.value) < 8 {
			return fmt.Errorf("uid range of %d bytes", len(a.value))
		}
		r.UIDs = [2]uint32{m.order.Uint32(a.value), m.order.Uint32(a.value[4:])}
		// The kernel dumps the range of every rule; 0 to the last uid is none.
		r.HasUIDs = r.UIDs != [2]uint32{0, ^uint32(0)} && r.UIDs != [2]uint32{0, ^uint32(0) - 1}
	case fraProtocol:
		r.Protocol, err = a.u8()
	case fraIPProto:
		var v uint8
		v, err = a.u8()
		r.IPProto = firewall.Proto(v)
	case fraSport:
		r.Sport, err = portRange(m, a)
	case fraDport:
		r.Dport, err = portRange(m, a)
	case fraDSCP:
		r.DSCP, err = a.u8()
		r.HasDSCP = true
	case fraDSCPMask:
		r.DSCPMask, err = a.u8()
	case fraSportMask:
		r.SportMask, err = a.u16(m.order)
	case fraDportMask:
		r.DportMask, err = a.u16(m.order)
	case fraFlowLabel, fraFlowLabelMask:
		if len(a.value) != 4 || binary.BigEndian.Uint32(a.value) != 0 {
			r.opaque("flowlabel")
		}
	default:
		r.opaque(fmt.Sprintf("attribute %d", a.typ))
	}
	return err
}

func portRange(m message, a attr) ([2]uint16, error) {
	if len(a.value) < 4 {
		return [2]uint16{}, fmt.Errorf("port range of %d bytes", len(a.value))
	}
	return [2]uint16{m.order.Uint16(a.value), m.order.Uint16(a.value[2:])}, nil
}
