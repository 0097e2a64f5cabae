package nft

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	fw "github.com/hostaudit/hostaudit/firewall"
)

var kindNames = map[fw.FieldKind]string{
	fw.FieldNFProto: "nfproto", fw.FieldEtherType: "ethertype", fw.FieldL4Proto: "l4proto", fw.FieldIPProto: "ipproto",
	fw.FieldSrcAddr: "saddr", fw.FieldDstAddr: "daddr", fw.FieldSrcPort: "sport", fw.FieldDstPort: "dport",
	fw.FieldTCPFlags: "tcpflags", fw.FieldICMPType: "icmptype", fw.FieldICMPCode: "icmpcode", fw.FieldFragment: "frag",
	fw.FieldExtHdr: "exthdr", fw.FieldTCPOption: "tcpopt", fw.FieldPayload: "payload", fw.FieldSrcMAC: "smac", fw.FieldDstMAC: "dmac",
	fw.FieldLength: "length", fw.FieldTTL: "ttl", fw.FieldDSCP: "dscp", fw.FieldECN: "ecn", fw.FieldInIndex: "iif", fw.FieldInName: "iifname",
	fw.FieldInType: "iiftype", fw.FieldInGroup: "iifgroup", fw.FieldInKind: "iifkind", fw.FieldOutIndex: "oif", fw.FieldOutName: "oifname",
	fw.FieldPktType: "pkttype", fw.FieldMark: "mark", fw.FieldFIBType: "fibtype", fw.FieldFIBOutIndex: "fiboif", fw.FieldFIBOutName: "fiboifname",
	fw.FieldFIBPresent: "fibpresent", fw.FieldRandom: "random", fw.FieldTime: "time", fw.FieldSKUID: "skuid", fw.FieldSKGID: "skgid", fw.FieldSocket: "socket",
	fw.FieldCTState: "ctstate", fw.FieldCTStatus: "ctstatus", fw.FieldCTDirection: "ctdir", fw.FieldCTMark: "ctmark", fw.FieldCTZone: "ctzone",
	fw.FieldCTSrcAddr: "ctsaddr", fw.FieldCTDstAddr: "ctdaddr", fw.FieldCTSrcPort: "ctsport", fw.FieldCTDstPort: "ctdport",
	fw.FieldCTL3Proto: "ctl3proto", fw.FieldCTL4Proto: "ctl4proto", fw.FieldCTLabel: "ctlabel", fw.FieldCTHelper: "cthelper", fw.FieldCTExpiration: "ctexpiration", fw.FieldCTSecMark: "ctsecmark", fw.FieldCTEventMask: "ctevent", fw.FieldSecMark: "secmark", fw.FieldOutGroup: "oifgroup", fw.FieldOutKind: "oifkind", fw.FieldSecPath: "secpath", fw.FieldIPVersion: "ipversion", fw.FieldRPFilter: "rpfilter",
	fw.FieldUnknown: "unknown", fw.FieldPriority: "priority", fw.FieldRealm: "realm", fw.FieldRTNextHop: "nexthop", fw.FieldIPSec: "ipsec",
	fw.FieldCTBytes: "ctbytes", fw.FieldCTPackets: "ctpackets", fw.FieldCPU: "cpu", fw.FieldCgroup: "cgroup", fw.FieldPhysIn: "ibrname", fw.FieldPhysOut: "obrname",
}

// show writes a statement in a short form that tests compare.
func show(s fw.Stmt) string {
	switch s := s.(type) {
	case *fw.Match:
		return showOperand(s.Operand) + showNot(s.Invert) + showRanges(s)
	case *fw.Lookup:
		return showKeys(s.Keys) + showNot(s.Invert) + showSet(s.Set)
	case *fw.AllOf:
		return showNot(s.Invert) + "(" + showMatchers(s.Of, " & ") + ")"
	case *fw.AnyOf:
		return showNot(s.Invert) + "(" + showMatchers(s.Of, " | ") + ")"
	case *fw.Verdict:
		if s.Chain != nil {
			return s.Kind.String() + " " + s.Chain.Name
		}
		return s.Kind.String()
	case *fw.VerdictMap:
		return showKeys(s.Keys) + " vmap " + showSet(s.Map)
	case *fw.SetField:
		return "set " + kindNames[s.Kind] + " " + showSource(s.From)
	case *fw.SetPayload:
		return fmt.Sprintf("set payload %d:%d+%d %s %s", s.Base, s.Offset, s.Len, kindNames[s.Field], showSource(s.From))
	case *fw.NAT:
		out := [...]string{"dnat", "snat", "masquerade", "redirect"}[s.Kind]
		if s.Family != 0 {
			out += " " + s.Family.String()
		}
		for i, src := range []fw.Source{s.AddrMin, s.AddrMax, s.PortMin, s.PortMax} {
			if src != nil {
				out += " " + [...]string{"a", "A", "p", "P"}[i] + "=" + showSource(src)
			}
		}
		if s.Flags != 0 {
			out += fmt.Sprintf(" flags=%d", s.Flags)
		}
		return out
	case *fw.Reject:
		if s.TCPReset {
			return "reject rst"
		}
		return fmt.Sprintf("reject %d/%d %d/%d", s.V4Type, s.V4Code, s.V6Type, s.V6Code)
	case *fw.QueueTo:
		return fmt.Sprintf("queue %d-%d bypass=%v", s.From, s.To, s.Bypass)
	case *fw.TProxy:
		return "tproxy " + showSource(s.Addr) + " " + showSource(s.Port)
	case *fw.SynProxy:
		return "synproxy"
	case *fw.Notrack:
		return "notrack"
	case *fw.SetUpdate:
		out := s.Op + " @" + s.Name + " " + showKeys(s.Keys)
		if s.Limited != "" {
			out += " limited by " + s.Limited
		}
		return out
	case *fw.Inert:
		return "inert " + s.Name
	case *fw.Opaque:
		out := "opaque "
		if s.MayEnd {
			out = "OPAQUE "
		}
		return out + s.Name + " (" + s.Reason + ")"
	default:
		return fmt.Sprintf("%T%+v", s, s)
	}
}

func showMatchers(ms []fw.Matcher, sep string) string {
	var out []string
	for _, m := range ms {
		out = append(out, show(m))
	}
	return strings.Join(out, sep)
}

func showNot(b bool) string {
	if b {
		return "!"
	}
	return ""
}

func showOperand(o fw.Operand) string {
	out := kindNames[o.Field.Kind]
	if out == "" {
		out = fmt.Sprintf("field%d", o.Field.Kind)
	}
	switch o.Field.Kind {
	case fw.FieldPayload:
		out += fmt.Sprintf("@%d,%d,%d", o.Field.A, o.Field.B, o.Field.C)
	default:
		if o.Field.A != 0 {
			out += fmt.Sprintf(":%d", o.Field.A)
		}
	}
	if o.Mask != fw.MaxValue(o.Len) && o.Mask != fw.MaxValue(16) {
		out += "&" + o.Mask.String()
	}
	if !o.Xor.IsZero() {
		out += "^" + o.Xor.String()
	}
	if o.Shift > 0 {
		out += fmt.Sprintf(">>%d", o.Shift)
	}
	if o.Shift < 0 {
		out += fmt.Sprintf("<<%d", -o.Shift)
	}
	if o.HostOrder {
		out += "~"
	}
	if o.Why != "" {
		out += "[" + o.Why + "]"
	}
	return out
}

func showRanges(m *fw.Match) string {
	if len(m.In) == 1 && m.In[0].Lo.IsZero() && m.In[0].Hi == fw.MaxValue(m.Operand.Len) {
		return "?"
	}
	return m.In.String()
}

func showKeys(ks []fw.Operand) string {
	var out []string
	for _, k := range ks {
		out = append(out, showOperand(k))
	}
	return strings.Join(out, ".")
}

func showSet(s *fw.Set) string {
	if !s.Anonymous {
		return "@" + s.Name
	}
	return "{" + showElements(s) + "}"
}

func showElements(s *fw.Set) string {
	var out []string
	for i := range s.N {
		k, e := s.Key(i)
		one := fmt.Sprintf("%x", k)
		if string(k) != string(e) {
			one += fmt.Sprintf("-%x", e)
		}
		if s.Data != nil {
			one += ":" + showDatum(&s.Data[i])
		}
		if s.Stateful != nil && s.Stateful[i] != "" {
			one += " (" + s.Stateful[i] + ")"
		}
		out = append(out, one)
	}
	slices.Sort(out) // hashed sets have no order
	if s.HasCatchAll {
		out = append(out, "*:"+showDatum(s.CatchAll))
	}
	return strings.Join(out, " ")
}

func showDatum(d *fw.Datum) string {
	switch {
	case d.Verdict != nil:
		return show(d.Verdict)
	case d.Object != "":
		return "object " + d.Object
	default:
		return fmt.Sprintf("%x", d.Bytes)
	}
}

func showSource(s fw.Source) string {
	switch s := s.(type) {
	case nil:
		return "-"
	case fw.Const:
		return s.Value.String()
	case *fw.FromField:
		return showOperand(s.Operand)
	case *fw.FromMap:
		return fmt.Sprintf("%s map %s[%d+%d]", showKeys(s.Keys), showSet(s.Map), s.Offset, s.Len)
	case fw.FromNowhere:
		return "nowhere (" + s.Why + ")"
	default:
		return fmt.Sprintf("%T", s)
	}
}

func showRule(r *fw.Rule) string {
	var out []string
	for _, s := range r.Stmts {
		out = append(out, show(s))
	}
	return strings.Join(out, "; ")
}

// TestShowFile prints how the model sees the ruleset in the file NFT_SHOW.
func TestShowFile(t *testing.T) {
	file := os.Getenv("NFT_SHOW")
	if file == "" {
		t.Skip("NFT_SHOW names no file")
	}
	needTools(t, "nft")
	inNetns(t)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	load(t, string(b))
	for _, tab := range read(t, Options{}).Tables {
		fmt.Println(tab.Backend, tab.Family, tab.Name)
		for _, s := range tab.Sets {
			fmt.Println("  set", s.Name, s.Fields, showElements(s), s.Unread)
		}
		for _, c := range tab.Chains {
			fmt.Println("  chain", c.Name, c.Base)
			for _, r := range c.Rules {
				fmt.Println("   ", r.Number, r.Handle, showRule(r), r.Comment)
				fmt.Println("        ", r.Text())
			}
		}
	}
}
