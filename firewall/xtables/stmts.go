package xtables

import (
	"fmt"

	"github.com/hostaudit/hostaudit/firewall"
)

// always is the lowering of a match that every packet passes: nothing.
var always []firewall.Stmt

// never is a match that no packet passes.
func never() firewall.Matcher {
	return &firewall.Match{Operand: firewall.Plain(firewall.FieldNFProto, 1)}
}

// neverStmts is never as the whole lowering of a match.
func neverStmts() []firewall.Stmt { return one(never()) }

// cannotTell is a match whose outcome no reading of the host can tell.
func cannotTell(name, format string, args ...any) *firewall.Opaque {
	return &firewall.Opaque{Name: name, Reason: fmt.Sprintf(format, args...)}
}

// unknown is a Matcher that cannot be told, for use inside AllOf and AnyOf.
func unknown(format string, args ...any) *firewall.Match {
	op := firewall.Plain(firewall.FieldUnknown, 16)
	op.Why = fmt.Sprintf(format, args...)
	return &firewall.Match{Operand: op, In: firewall.All(16)}
}

// inert is a target without effect on a packet's way.
func inert(name, format string, args ...any) []firewall.Stmt {
	return one(&firewall.Inert{Name: name, Detail: fmt.Sprintf(format, args...)})
}

// is matches a field that is n bytes wide against a set of values.
func is(k firewall.FieldKind, n int, in firewall.Ranges, invert bool) *firewall.Match {
	return &firewall.Match{Operand: firewall.Plain(k, n), In: in, Invert: invert}
}

// isHost is is for a number that the kernel holds in host byte order.
func isHost(k firewall.FieldKind, n int, in firewall.Ranges, invert bool) *firewall.Match {
	m := is(k, n, in, invert)
	m.Operand.HostOrder = true
	return m
}

// masked matches (field & mask) == want.
func masked(k firewall.FieldKind, n int, mask, want uint64, invert bool) *firewall.Match {
	return &firewall.Match{
		Operand: firewall.Masked(k, n, firewall.Num(mask)),
		In:      firewall.Single(firewall.Num(want)),
		Invert:  invert,
	}
}

// maskedHost is masked for a number in host byte order.
func maskedHost(k firewall.FieldKind, n int, mask, want uint64, invert bool) *firewall.Match {
	m := masked(k, n, mask, want, invert)
	m.Operand.HostOrder = true
	return m
}

// span is the range lo–hi, empty when lo > hi.
func span(lo, hi uint64) firewall.Ranges {
	return firewall.Span(firewall.Num(lo), firewall.Num(hi))
}

// prefixLen returns n when mask is n ones followed by zeros.
func prefixLen(mask firewall.Value, width int) (int, bool) {
	n := mask.OnesCount()
	return n, mask == firewall.PrefixMask(n, width)
}

// addrMask matches (address & mask) == want: a range for a prefix, a masked
// operand otherwise.
func addrMask(k firewall.FieldKind, width int, want, mask firewall.Value, invert bool) *firewall.Match {
	if _, ok := prefixLen(mask, width); ok {
		var in firewall.Ranges
		if want.And(mask) == want {
			in = firewall.Span(want, want.Or(mask.Not(width)))
		}
		return is(k, width, in, invert)
	}
	return &firewall.Match{Operand: firewall.Masked(k, width, mask), In: firewall.Single(want), Invert: invert}
}

// ifName matches an interface name against a pattern and its byte mask
// (ifname_compare_aligned).
func ifName(k firewall.FieldKind, name, mask []byte, invert bool) *firewall.Match {
	n := 0
	for n < len(mask) && mask[n] == 0xff {
		n++
	}
	for _, c := range mask[n:] {
		if c != 0 {
			// No front end makes such a mask.
			m := firewall.Bytes(mask)
			return &firewall.Match{Operand: firewall.Masked(k, 16, m), In: firewall.Single(firewall.Bytes(name).And(m)), Invert: invert}
		}
	}
	if n > 0 {
		for i, c := range name[:n] {
			if c == 0 {
				// The mask covers the end of the name: the whole name.
				return is(k, 16, firewall.Single(firewall.NameValue(string(name[:i]))), invert)
			}
		}
	}
	m := firewall.PrefixMask(8*n, 16)
	lo := firewall.Bytes(name).And(m)
	return is(k, 16, firewall.Span(lo, lo.Or(m.Not(16))), invert)
}
