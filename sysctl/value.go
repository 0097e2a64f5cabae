package sysctl

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Shape says how a value is written and when two values mean the same.
type Shape string

// The shapes a value can have.
const (
	ShapeInt   Shape = "int"   // one integer
	ShapeInts  Shape = "ints"  // a fixed number of integers, as tcp_rmem: "4096 131072 6291456"
	ShapePorts Shape = "ports" // a list of port ranges, as ip_local_reserved_ports: "8080,9000-9010"
	ShapeWords Shape = "words" // a set of words, as tcp_available_congestion_control
	ShapeText  Shape = "text"  // anything else; compared without regard to white space at the ends
)

// PortRange is an inclusive range of ports.
type PortRange struct{ Low, High uint16 }

// String is "8080" or "9000-9010".
func (r PortRange) String() string {
	if r.Low == r.High {
		return strconv.Itoa(int(r.Low))
	}
	return fmt.Sprintf("%d-%d", r.Low, r.High)
}

// Contains says whether the port lies in the range.
func (r PortRange) Contains(port uint16) bool { return r.Low <= port && port <= r.High }

// errValue is what the kernel answers to text it does not understand (EINVAL).
var errValue = errors.New("the kernel refuses this text")

// isKernelSpace is isspace in lib/ctype.c, without the Latin-1 no-break space.
func isKernelSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// parseInts reads up to max integers as kernel/sysctl.c does in
// do_proc_dointvec: white space between, base by prefix (0x1000 is 4096, 010 is
// 8), text after the last wanted field ignored. A field that is not ended by
// blank, tab or newline is refused. The fields read before an error are
// returned with it, because the kernel has stored them by then.
func parseInts(s string, max int) ([]int64, error) {
	var out []int64
	for len(out) < max {
		for s != "" && isKernelSpace(s[0]) {
			s = s[1:]
		}
		if s == "" {
			break
		}
		v, rest, err := kernelLong(s, " \t\n")
		if err != nil {
			return out, err
		}
		out = append(out, v)
		s = rest
	}
	if len(out) == 0 {
		return nil, errValue
	}
	return out, nil
}

// kernelLong is proc_get_long: an optional minus, digits in the base that the
// prefix names, then the end or one of the bytes in until.
func kernelLong(s, until string) (int64, string, error) {
	const longest = 21 // TMPBUFLEN - 1
	digits := s
	neg := false
	if strings.HasPrefix(digits, "-") && len(digits) > 1 {
		neg = true
		digits = digits[1:]
	}
	if digits == "" || digits[0] < '0' || digits[0] > '9' {
		return 0, s, errValue
	}
	base, skip := 10, 0
	if digits[0] == '0' {
		base = 8
		if len(digits) > 2 && (digits[1]|0x20) == 'x' && isHex(digits[2]) {
			base, skip = 16, 2
		}
	}
	n := skip
	for n < len(digits) && digitValue(digits[n]) < base {
		n++
	}
	length := n + len(s) - len(digits)
	if length >= longest {
		return 0, s, errValue
	}
	if n < len(digits) && !strings.ContainsRune(until, rune(digits[n])) {
		return 0, s, errValue
	}
	u, err := strconv.ParseUint(digits[skip:n], base, 64)
	if err != nil || u > math.MaxInt64 {
		return 0, s, errValue
	}
	v := int64(u)
	if neg {
		v = -v
	}
	return v, digits[n:], nil
}

func isHex(c byte) bool { return digitValue(c) < 16 }

func digitValue(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return 99
}

// ParsePorts reads a list of port ranges as proc_do_large_bitmap does:
// "8080,9000-9010", no blanks inside. The result is sorted, merged and
// disjoint.
func ParsePorts(s string) ([]PortRange, error) {
	s = strings.Trim(s, "\n")
	var out []PortRange
	for s != "" {
		low, rest, err := kernelLong(s, "-,\n")
		if err != nil || low < 0 || low > 65535 {
			return nil, fmt.Errorf("port list %q: %w", s, errValue)
		}
		high := low
		dash := strings.HasPrefix(rest, "-")
		if rest != "" {
			rest = rest[1:]
		}
		if dash {
			high, rest, err = kernelLong(rest, ",\n")
			if err != nil || high < low || high > 65535 {
				return nil, fmt.Errorf("port list %q: %w", s, errValue)
			}
			if rest != "" {
				rest = rest[1:]
			}
		}
		out = append(out, PortRange{uint16(low), uint16(high)})
		s = strings.TrimLeft(rest, "\n")
	}
	return MergePorts(out), nil
}

// MergePorts sorts ranges and joins those that touch or overlap.
func MergePorts(in []PortRange) []PortRange {
	in = slices.Clone(in)
	slices.SortFunc(in, func(a, b PortRange) int { return int(a.Low) - int(b.Low) })
	var out []PortRange
	for _, r := range in {
		if n := len(out); n > 0 && int(r.Low) <= int(out[n-1].High)+1 {
			out[n-1].High = max(out[n-1].High, r.High)
			continue
		}
		out = append(out, r)
	}
	return out
}

// FormatPorts is the inverse of ParsePorts.
func FormatPorts(ranges []PortRange) string {
	var parts []string
	for _, r := range ranges {
		parts = append(parts, r.String())
	}
	return strings.Join(parts, ",")
}

// ParseRange reads the two fields of ip_local_port_range.
func ParseRange(s string) (PortRange, error) {
	v, err := parseInts(s, 2)
	if err != nil || len(v) != 2 || v[0] < 0 || v[1] > 65535 || v[0] > v[1] {
		return PortRange{}, fmt.Errorf("port range %q: %w", s, errValue)
	}
	return PortRange{uint16(v[0]), uint16(v[1])}, nil
}

// Canonical renders a value the way it is compared: integers in decimal with
// single blanks, port lists merged, words sorted, other text with its white
// space joined. A value that does not have the shape is
// returned without the blanks at its ends.
func (s Shape) Canonical(value string) string {
	switch s {
	case ShapeInt, ShapeInts:
		value = strings.Trim(value, " \t\n")
		fields := 16
		if s == ShapeInt {
			fields = 1
		}
		if v, err := parseInts(value, fields); err == nil {
			return formatInts(v)
		}
		return value
	case ShapePorts:
		value = strings.TrimSpace(value)
		if v, err := ParsePorts(value); err == nil {
			return FormatPorts(v)
		}
		return value
	case ShapeWords:
		words := strings.Fields(value)
		slices.Sort(words)
		return strings.Join(slices.Compact(words), " ")
	}
	return strings.Join(strings.Fields(value), " ")
}

func formatInts(v []int64) string {
	parts := make([]string, len(v))
	for i, n := range v {
		parts[i] = strconv.FormatInt(n, 10)
	}
	return strings.Join(parts, " ")
}

// Equal says whether two values mean the same.
func (s Shape) Equal(a, b string) bool { return s.Canonical(a) == s.Canonical(b) }

// Raise merges the wanted value into the present one without lowering any
// field: the larger integer per field, the union of port lists and word sets.
// changed is false when the present value already covers the wanted one.
// Text has no order and is refused.
func (s Shape) Raise(have, want string) (merged string, changed bool, err error) {
	switch s {
	case ShapeInt, ShapeInts:
		h, err := parseInts(have, 16)
		if err != nil {
			return "", false, fmt.Errorf("present value %q: %w", have, err)
		}
		w, err := parseInts(want, 16)
		if err != nil {
			return "", false, fmt.Errorf("wanted value %q: %w", want, err)
		}
		if len(w) > len(h) {
			return "", false, fmt.Errorf("wanted value %q has more fields than %q", want, have)
		}
		out := slices.Clone(h)
		for i := range w {
			out[i] = max(out[i], w[i])
		}
		return formatInts(out), !slices.Equal(out, h), nil
	case ShapePorts:
		h, err := ParsePorts(strings.TrimSpace(have))
		if err != nil {
			return "", false, fmt.Errorf("present value: %w", err)
		}
		w, err := ParsePorts(strings.TrimSpace(want))
		if err != nil {
			return "", false, fmt.Errorf("wanted value: %w", err)
		}
		out := MergePorts(append(slices.Clone(h), w...))
		return FormatPorts(out), !slices.Equal(out, h), nil
	case ShapeWords:
		out := s.Canonical(have + " " + want)
		return out, out != s.Canonical(have), nil
	}
	return "", false, fmt.Errorf("value %q has no order to raise it in", have)
}

// pageSize is the smallest page of any machine; kernels with larger pages read
// further, which no real value needs.
const pageSize = 4096

// store says what a key of this shape holds after text has been written over
// the value before. Kernels store the fields they understood before an error,
// so that the value can change though the write failed; atomic entries
// (ip_local_port_range, which is parsed into a copy) do not. known is false
// where the model cannot tell.
func (e *Entry) store(before, text string) (after string, ok, known bool) {
	switch e.Shape {
	case ShapeInt, ShapeInts:
		text = text[:min(len(text), pageSize-1)] // do_proc_dointvec looks no further
		n := max(e.Fields, 1)
		v, err := parseInts(text, n)
		if !e.inBounds(v) {
			return before, false, false // kernels differ in what they take there
		}
		if e.Atomic {
			return e.storeRange(before, v, err)
		}
		if len(v) == 0 {
			return before, false, true
		}
		if len(v) < n {
			old, oldErr := parseInts(before, n)
			if oldErr != nil || len(old) < n {
				return before, err == nil, false
			}
			copy(old, v)
			v = old
		}
		return formatInts(v), err == nil, true
	case ShapePorts:
		if len(text) >= pageSize-1 {
			return before, false, false // taken in pieces, which the loaders do differently
		}
		v, err := ParsePorts(text)
		if err != nil {
			return before, false, true
		}
		return FormatPorts(v), true, true
	}
	return text, true, false
}

// storeRange is ipv4_local_port_range: both ends are parsed into a copy, which
// is stored only when it is a range of ports that does not begin below
// ip_unprivileged_port_start (1024 unless somebody changed it).
func (e *Entry) storeRange(before string, v []int64, err error) (after string, ok, known bool) {
	if err != nil || len(v) == 0 {
		return before, false, true
	}
	if len(v) == 1 {
		old, oldErr := parseInts(before, 2)
		if oldErr != nil || len(old) < 2 {
			return before, false, false
		}
		v = []int64{v[0], old[1]}
	}
	switch {
	case v[0] > v[1]:
		return before, false, true
	case v[0] < 1024:
		return before, false, false
	}
	return formatInts(v), true, true
}

// inBounds says whether every field lies where all kernels store it as it stands.
func (e *Entry) inBounds(v []int64) bool {
	lo, hi := int64(0), int64(math.MaxInt32)
	if e.Unit == UnitBool {
		hi = 1
	}
	if e.Min != nil {
		lo = *e.Min
	}
	if e.Max != nil {
		hi = *e.Max
	}
	for _, x := range v {
		if x < lo || x > hi || e.Coarse && x%1000 != 0 {
			return false
		}
	}
	return true
}

// shapedLike makes an entry for a key that the catalogue does not have, with
// the shape its present value shows.
func shapedLike(k Key, present string) *Entry {
	e := &Entry{Key: k, Shape: ShapeText}
	fields := strings.Fields(present)
	for _, f := range fields {
		if _, err := strconv.ParseInt(f, 10, 64); err != nil {
			return e
		}
	}
	if len(fields) > 0 {
		e.Shape, e.Fields = ShapeInts, len(fields)
	}
	return e
}
