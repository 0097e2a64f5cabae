package ipset

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// Source answers for the sets of one network namespace, raw.
type Source interface {
	// List yields the messages of IPSET_CMD_LIST: everything after struct
	// nlmsghdr, that is struct nfgenmsg and attributes. A message is valid
	// until the next one is asked for; an error ends the sequence.
	// ErrNotPresent says that the kernel has no ipset, or has not loaded it.
	List(ctx context.Context) iter.Seq2[[]byte, error]
	// Index returns the kernel's index of a set (IP_SET_OP_GET_BYNAME). It is
	// asked only where List does not tell.
	Index(ctx context.Context, name string) (uint16, error)
}

// ErrNotPresent says that the kernel has no ipset, or has not loaded it, so that there
// is no set. It is no gap.
var ErrNotPresent = errors.New("the kernel has no ipset")

// Error is a failed operation on the subsystem.
type Error struct {
	Op     string // "open", "list", "find"
	Object string // "sets", "set NAME"
	Err    error  // usually a syscall.Errno
}

func (e *Error) Error() string { return fmt.Sprintf("ipset: %s %s: %v", e.Op, e.Object, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// DecodeError is a message that does not have the form of the kernel's ABI.
type DecodeError struct{ Object, What string }

func (e *DecodeError) Error() string { return fmt.Sprintf("ipset: decode %s: %s", e.Object, e.What) }
