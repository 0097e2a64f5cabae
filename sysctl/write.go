package sysctl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotTaken says that a write succeeded and the kernel holds another value
// afterwards.
var ErrNotTaken = errors.New("the kernel holds another value after the write")

// Change is one value to set: its inverse is the swap of Before and After.
type Change struct {
	Key    Key    `json:"key"`
	Before string `json:"before"` // the live value, as read
	After  string `json:"after"`  // canonical
	Reason string `json:"reason"` // one line, for the file and the journal
}

// Inverse is the change that undoes c.
func (c Change) Inverse() Change {
	c.Before, c.After = c.After, c.Before
	return c
}

// PlanChange says what to write so that the key covers the wanted value and no
// field of it is lowered: the larger number per field, the union of lists.
// Exact is for keys whose values have no order (a switch, a mode): the wanted
// value replaces the present one. needed is false when nothing is to be done.
func PlanChange(k Key, live, want, reason string, exact bool) (c Change, needed bool, err error) {
	if err := k.CheckWritable(); err != nil {
		return Change{}, false, err
	}
	e, _ := Find(k)
	after := want
	if !exact {
		merged, _, err := e.Shape.Raise(live, want)
		if err != nil {
			return Change{}, false, fmt.Errorf("plan %s: %w", k, err)
		}
		after = merged
		if k == keyPortRange { // a range is widened: its low end goes down
			if after, err = widen(live, want); err != nil {
				return Change{}, false, fmt.Errorf("plan %s: %w", k, err)
			}
		}
	}
	if err := CheckValue(k, live, after); err != nil {
		return Change{}, false, err
	}
	c = Change{Key: k, Before: live, After: e.Shape.Canonical(after), Reason: oneLine(reason)}
	return c, !e.Shape.Equal(live, after), nil
}

// widen is the smallest range that covers both.
func widen(have, want string) (string, error) {
	h, err := ParseRange(have)
	if err != nil {
		return "", err
	}
	w, err := ParseRange(want)
	if err != nil {
		return "", err
	}
	return PortRange{min(h.Low, w.Low), max(h.High, w.High)}.spaced(), nil
}

// CheckValue refuses a value that is not plain text on one line, or that the
// kernel is known to refuse or to understand otherwise.
func CheckValue(k Key, live, value string) error {
	if strings.ContainsFunc(value, func(r rune) bool { return r < 0x20 || r == 0x7f || r > 0x7e }) || len(value) > pageSize-2 {
		return fmt.Errorf("refuse to write %s: value %q is not plain text", k, shorten(value))
	}
	e, ok := Find(k)
	if !ok {
		return fmt.Errorf("refuse to write %s: not in the catalogue", k)
	}
	after, taken, known := e.store(live, value)
	switch {
	case e.Shape == ShapeText:
		return nil
	case !known || !taken:
		return fmt.Errorf("refuse to write %s: %w: %q", k, errValue, value)
	case !e.Shape.Equal(after, value), e.Shape != ShapePorts && e.Shape.Canonical(value) != strings.Join(strings.Fields(value), " "):
		return fmt.Errorf("refuse to write %s: the kernel would make %q of %q", k, after, value)
	}
	return nil
}

// oneLine keeps a reason from becoming a second line of a file.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// Set writes one key below dir (ProcSys) with a single write(2), reads it back
// and compares by field. Exit codes and return values of writes lie for some
// keys (a write to nf_conntrack_max in a child namespace, a list taken in
// part), so only the value read back counts. It returns what the kernel holds
// afterwards; errors.Is(err, ErrNotTaken) when that is not what was asked.
//
// The key must be writable for this program (CheckWritable) and the value
// checked; a write in the wrong network namespace is the caller's to prevent.
func Set(ctx context.Context, dir string, k Key, value string) (after string, err error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("write %s: %w", k, err)
	}
	if err := k.CheckWritable(); err != nil {
		return "", err
	}
	before, err := readValue(dir, k)
	if err != nil {
		return "", fmt.Errorf("read %s before writing: %w", k, err)
	}
	if err := CheckValue(k, before, value); err != nil {
		return before, err
	}
	fd, err := unix.Open(dir+"/"+k.Path(), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return before, fmt.Errorf("open %s for writing: %w", k, err)
	}
	text := value + "\n"
	n, writeErr := unix.Write(fd, []byte(text))
	closeErr := unix.Close(fd)
	if writeErr == nil && n != len(text) {
		writeErr = fmt.Errorf("only %d of %d bytes were taken", n, len(text))
	}
	// Read back whatever happened: a failed write can have stored fields.
	after, readErr := readValue(dir, k)
	if err := errors.Join(writeErr, closeErr, readErr); err != nil {
		return after, fmt.Errorf("write %q to %s: %w", value, k, err)
	}
	if !shapeOf(k).Equal(after, value) {
		return after, fmt.Errorf("write %q to %s: %w: %q", value, k, ErrNotTaken, after)
	}
	return after, nil
}
