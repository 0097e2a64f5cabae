package nft

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// Request is one question to nfnetlink. It is comparable, so that answers can
// be kept by it.
type Request struct {
	Subsystem uint8  // NFNL_SUBSYS_*
	Type      uint8  // message type of the subsystem (NFT_MSG_GET*)
	Family    uint8  // NFPROTO_*, 0 for all
	Attrs     string // netlink attributes after struct nfgenmsg
}

// Source answers requests with raw messages. A message is everything after
// struct nlmsghdr: struct nfgenmsg and attributes; it is valid until the next
// one is asked for.
type Source interface {
	// Dump yields the messages of a dump. An error ends the sequence;
	// ErrInterrupted says that the ruleset changed under the dump.
	Dump(ctx context.Context, req Request) iter.Seq2[[]byte, error]
	// Get asks for a single message. A refusal by the kernel is a *Error
	// with the errno inside.
	Get(ctx context.Context, req Request) ([]byte, error)
}

var (
	// ErrInterrupted: the kernel marked a dump with NLM_F_DUMP_INTR.
	ErrInterrupted = errors.New("the ruleset changed during the dump")
	// ErrChanged: the ruleset had another generation after every attempt to
	// read it.
	ErrChanged = errors.New("ruleset kept changing")
	// ErrNotPresent: the kernel has no nf_tables, so there is no ruleset.
	// Read returns it together with an empty ruleset; it is no gap.
	ErrNotPresent = errors.New("the kernel has no nf_tables")
)

// Error is a failed operation on the netlink socket.
type Error struct {
	Op     string // "open", "dump", "get"
	Object string // "rules of inet filter input"
	Err    error  // usually a syscall.Errno
}

func (e *Error) Error() string {
	return fmt.Sprintf("nf_tables: %s %s: %v", e.Op, e.Object, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// DecodeError is a message of the kernel that does not have the form of its
// ABI.
type DecodeError struct {
	What string
	Err  error
}

func (e *DecodeError) Error() string { return fmt.Sprintf("nf_tables: decode %s: %v", e.What, e.Err) }

func (e *DecodeError) Unwrap() error { return e.Err }

// object names what a request asks for.
func (r Request) object() string {
	if r.Subsystem == subsysHook {
		return "hooks"
	}
	var what string
	var table, name uint16 = 1, 0
	switch r.Type {
	case msgGetTable:
		what = "tables"
	case msgGetChain:
		what = "chains"
	case msgGetRule:
		what, name = "rules", ruleChain
	case msgGetSet:
		what = "sets"
	case msgGetSetElem:
		what, name = "elements", elemListSet
	case msgGetGen:
		return "generation"
	case msgGetObj:
		what = "objects"
	case msgGetFlowtable:
		what = "flowtables"
	default:
		what = fmt.Sprintf("message %d", r.Type)
	}
	var of string
	for a := walk([]byte(r.Attrs)); a.next(); {
		switch a.typ {
		case table, name:
			of += " " + string(cstring(a.val))
		}
	}
	if of == "" {
		return what
	}
	return what + " of " + string(familyOf(r.Family)) + of
}
