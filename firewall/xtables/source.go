package xtables

import (
	"context"
	"errors"
	"fmt"

	"github.com/hostaudit/hostaudit/firewall"
)

// Source answers for the x_tables of one network namespace, raw. Families are
// firewall.TableIP and firewall.TableIP6.
type Source interface {
	// Names returns the content of ip_tables_names or ip6_tables_names: the
	// tables that exist, one a line. ErrNotPresent: the kernel has no such
	// back end.
	Names(ctx context.Context, fam firewall.TableFamily) ([]byte, error)
	// Info returns struct ipt_getinfo of a table that Names has listed.
	Info(ctx context.Context, fam firewall.TableFamily, table string) ([]byte, error)
	// Entries returns the size bytes of entries of a table, size being what
	// Info said. ErrChanged: the table was replaced since.
	Entries(ctx context.Context, fam firewall.TableFamily, table string, size int) ([]byte, error)
}

var (
	// ErrNotPresent: the kernel has no such back end. It is no gap.
	ErrNotPresent = errors.New("the kernel has no such back end")
	// ErrChanged: the table was replaced while it was read.
	ErrChanged = errors.New("the table was replaced while it was read")
)

// Error is a failed operation on a table.
type Error struct {
	Op     string // "open", "list", "read"
	Object string // "tables of ip", "table filter of ip6"
	Err    error  // usually a syscall.Errno
}

func (e *Error) Error() string { return fmt.Sprintf("x_tables: %s %s: %v", e.Op, e.Object, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// DecodeError is a blob of the kernel that does not have the form of its ABI.
type DecodeError struct {
	Object string
	Offset int
	What   string
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("x_tables: decode %s at byte %d: %s", e.Object, e.Offset, e.What)
}

func object(fam firewall.TableFamily, table string) string {
	return "table " + table + " of " + string(fam)
}
