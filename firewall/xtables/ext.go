package xtables

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/hostaudit/hostaudit/firewall"
)

// Ext is a match or a target of a rule as the kernel holds it.
type Ext struct {
	Name string
	Rev  uint8
	// Info is the struct of the module (struct xt_entry_match.data). The parts
	// that only the kernel uses are blank.
	Info []byte
}

// Sets finds the ipsets that rules name by the kernel's index.
type Sets interface {
	// IPSet returns the set with the index. An error says why it is not known.
	IPSet(index uint16) (*firewall.IPSet, error)
}

// Beside is [Sets] together with what else rules ask that lies outside of their
// tables. Both parts may be nil.
type Beside struct {
	Sets Sets
	// Recent reports whether the list of the recent match with a name was read and
	// holds nobody.
	Recent func(name string) bool
}

// IPSet implements [Sets].
func (b Beside) IPSet(index uint16) (*firewall.IPSet, error) {
	if b.Sets == nil {
		return nil, errors.New("the ipsets were not read")
	}
	return b.Sets.IPSet(index)
}

func (b Beside) recentEmpty(name string) bool { return b.Recent != nil && b.Recent(name) }

// Context is where a rule stands, which some structs cannot be read without.
type Context struct {
	// Family is firewall.TableIP or firewall.TableIP6.
	Family firewall.TableFamily
	// Hooks are those from which the rule's chain can be reached, bit
	// 1<<firewall.Hook for each; 0 where that is not known.
	Hooks uint8
	// Sets may be nil: then every match on a set is opaque.
	Sets Sets
}

func (cx *Context) family() firewall.Family {
	if cx.Family == firewall.TableIP6 {
		return firewall.IPv6
	}
	return firewall.IPv4
}

func (cx *Context) addrLen() int { return cx.family().AddrLen() }

// Flags of Context.Hooks that translate the destination and the source
// (HOOK2MANIP).
const (
	dstHooks = 1<<firewall.Prerouting | 1<<firewall.Output
	srcHooks = 1<<firewall.Postrouting | 1<<firewall.Input
)

// DecodeMatch lowers a match to statements that all have to match; none for one
// that always matches (comment). It never fails: what it does not know is an
// Opaque that names module, revision and bytes.
func DecodeMatch(cx *Context, e Ext) []firewall.Stmt {
	m, ok := matches[e.Name]
	if !ok {
		return one(unknownMatch(e))
	}
	for _, d := range m {
		if d.rev != e.Rev {
			continue
		}
		if len(e.Info) < d.size {
			return one(tooShort(e, d.size, false))
		}
		return d.decode(cx, e.Info)
	}
	return one(unknownMatch(e))
}

// DecodeTarget lowers a target that is not a verdict or jump. Like DecodeMatch
// it never fails; what it does not know may end the packet's way.
func DecodeTarget(cx *Context, e Ext) []firewall.Stmt {
	for _, d := range targets[e.Name] {
		if d.rev != e.Rev {
			continue
		}
		if len(e.Info) < d.size {
			return one(tooShort(e, d.size, true))
		}
		return d.decode(cx, e.Info)
	}
	return one(&firewall.Opaque{
		Name: e.Name, Raw: e.Info, MayEnd: true,
		Reason: fmt.Sprintf("the target %s, which is not known here (revision %d, %s)", e.Name, e.Rev, hexBytes(e.Info)),
	})
}

// Comment returns the text of a comment match.
func Comment(e Ext) (string, bool) {
	if e.Name != "comment" {
		return "", false
	}
	return cstring(e.Info), true
}

// decoder reads the struct of one revision of a module. size is the least
// number of bytes it touches.
type decoder struct {
	rev    uint8
	size   int
	decode func(cx *Context, b []byte) []firewall.Stmt
}

func one(s firewall.Stmt) []firewall.Stmt { return []firewall.Stmt{s} }

func unknownMatch(e Ext) firewall.Stmt {
	return &firewall.Opaque{
		Name: e.Name, Raw: e.Info,
		Reason: fmt.Sprintf("the match %s, which is not known here (revision %d, %s)", e.Name, e.Rev, hexBytes(e.Info)),
	}
}

func tooShort(e Ext, size int, target bool) firewall.Stmt {
	what := "match"
	if target {
		what = "target"
	}
	return &firewall.Opaque{
		Name: e.Name, Raw: e.Info, MayEnd: target,
		Reason: fmt.Sprintf("the %s %s revision %d, whose %d bytes are fewer than its %d", what, e.Name, e.Rev, len(e.Info), size),
	}
}

// hexBytes shows at most the first 64 bytes.
func hexBytes(b []byte) string {
	if len(b) == 0 {
		return "no data"
	}
	if len(b) > 64 {
		return "0x" + hex.EncodeToString(b[:64]) + "…"
	}
	return "0x" + hex.EncodeToString(b)
}

// The structs hold numbers in the machine's byte order, and addresses and some
// ports in network order.
func u16(b []byte, off int) uint16  { return binary.NativeEndian.Uint16(b[off:]) }
func u32(b []byte, off int) uint32  { return binary.NativeEndian.Uint32(b[off:]) }
func u64(b []byte, off int) uint64  { return binary.NativeEndian.Uint64(b[off:]) }
func be16(b []byte, off int) uint16 { return binary.BigEndian.Uint16(b[off:]) }

// cstring is the text up to the first zero byte.
func cstring(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// addr reads an address of the family from a union nf_inet_addr.
func (cx *Context) addr(b []byte, off int) firewall.Value {
	return firewall.Bytes(b[off : off+cx.addrLen()])
}
