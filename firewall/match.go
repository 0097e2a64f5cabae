package firewall

// Match compares one operand with a set of values. A packet that does not have
// the field does not match, inverted or not (nf_tables: NFT_BREAK; x_tables:
// hotdrop and "other protocol" are lowered to guards before it).
type Match struct {
	Operand Operand
	In      Ranges
	Invert  bool
	// WantAbsent makes the absence of the field a match (exthdr missing, xt
	// matches that are true without the header).
	WantAbsent bool
}

// AnyOf matches when one of its matches does (multiport --ports,
// physdev, xt_addrtype with both sides under inversion, …).
type AnyOf struct {
	Of     []Matcher
	Invert bool
}

// AllOf matches when all of its matches do; with Invert when not all do
// (`! ( … )` of xt matches that combine several conditions).
type AllOf struct {
	Of     []Matcher
	Invert bool
}

// Lookup looks the operands up in a set of nf_tables.
type Lookup struct {
	Keys   []Operand
	Set    *Set
	Invert bool
}

func (*Match) stmt()  {}
func (*AnyOf) stmt()  {}
func (*AllOf) stmt()  {}
func (*Lookup) stmt() {}
