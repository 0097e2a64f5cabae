package firewall

import "fmt"

// describe says in a few words what a statement asked, for traces.
func describe(s Stmt) string {
	switch s := s.(type) {
	case *Match:
		return "the " + fieldLabel(s.Operand.Field.Kind) + " does not match"
	case *Lookup:
		return "not in the set"
	case *VerdictMap:
		return "no element in the map"
	case *IPSetMatch:
		return "not in the set"
	case *AnyOf:
		return "none of its conditions holds"
	case *AllOf:
		return "its conditions do not all hold"
	case *Opaque:
		return s.Reason
	default:
		return fmt.Sprintf("%T does not match", s)
	}
}

var fieldLabels = map[FieldKind]string{
	FieldSrcAddr: "source address", FieldDstAddr: "destination address", FieldSrcPort: "source port", FieldDstPort: "destination port",
	FieldL4Proto: "protocol", FieldIPProto: "protocol", FieldNFProto: "address family", FieldEtherType: "address family",
	FieldInName: "incoming interface", FieldInIndex: "incoming interface", FieldOutName: "outgoing interface", FieldOutIndex: "outgoing interface",
	FieldCTState: "connection state", FieldCTStateNAT: "connection state", FieldCTStatus: "connection status", FieldCTMark: "connection mark",
	FieldMark: "packet mark", FieldTCPFlags: "TCP flags", FieldFIBType: "address type", FieldPktType: "packet type",
	FieldSKUID: "socket's user", FieldSKGID: "socket's group",
}

func fieldLabel(k FieldKind) string {
	if l, ok := fieldLabels[k]; ok {
		return l
	}
	return "packet"
}
