package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/hostaudit/hostaudit/audit"
)

// JSON writes one object, indented.
func JSON(w io.Writer, v any) error {
	if r, ok := v.(*audit.Report); ok && len(r.Listeners) > 1 {
		return scanJSON(w, r)
	}
	b, err := encode(v, "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// scanJSON writes a report as encode would, one listener after the other: their
// partitions are nearly all of it, and on a big host too much to hold at once.
func scanJSON(w io.Writer, r *audit.Report) error {
	rest := *r
	rest.Listeners = []audit.ListenerRow{}
	b, err := encode(&rest, "  ")
	if err != nil {
		return err
	}
	// A key of the outermost object: no other line begins like this, and no string
	// holds a line break.
	const key = "\n  \"listeners\": ["
	before, after, ok := bytes.Cut(b, []byte(key))
	if !ok {
		return errors.New("encode report: it has no listeners")
	}
	var piece bytes.Buffer
	piece.Write(before)
	piece.WriteString(key)
	for i := range r.Listeners {
		one, err := encode(&r.Listeners[i], "")
		if err != nil {
			return err
		}
		if i > 0 {
			piece.WriteByte(',')
		}
		piece.WriteString("\n    ")
		if err := json.Indent(&piece, bytes.TrimSuffix(one, []byte("\n")), "    ", "  "); err != nil {
			return fmt.Errorf("encode report: %w", err)
		}
		if _, err := piece.WriteTo(w); err != nil {
			return err
		}
	}
	piece.WriteString("\n  ")
	piece.Write(after)
	_, err = piece.WriteTo(w)
	return err
}

// Line writes one object on a line of its own.
func Line(w io.Writer, v any) error {
	b, err := encode(v, "")
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

func encode(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode report: %w", err)
	}
	return harmless(b.Bytes()), nil
}

// harmless writes characters that a terminal would act on or hide as \u escapes:
// the same JSON value, safe to look at. They occur inside strings only.
func harmless(b []byte) []byte {
	i := 0
	for i < len(b) && b[i] < utf8.RuneSelf && b[i] != 0x7f {
		i++
	}
	if i == len(b) {
		return b
	}
	out := append(make([]byte, 0, len(b)+64), b[:i]...)
	for i < len(b) {
		r, n := utf8.DecodeRune(b[i:])
		switch {
		case r >= utf8.RuneSelf && !invisible(r), r < utf8.RuneSelf && r != 0x7f:
			out = append(out, b[i:i+n]...)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		i += n
	}
	return out
}

// typed is one line of NDJSON: what it is, and the thing itself.
type typed struct {
	Type   string `json:"type"`
	Schema string `json:"schema,omitempty"`
	Value  any    `json:"value"`
}

// NDJSON writes the parts of a report, one object a line, for log shippers: the
// verdict first, then what was found, then what it was found in.
func NDJSON(w io.Writer, r *audit.Report) error {
	lines := []typed{{"host", r.Schema, r.Host}, {"verdict", "", r.Verdict}}
	for i := range r.Findings {
		lines = append(lines, typed{"finding", "", &r.Findings[i]})
	}
	for i := range r.Listeners {
		lines = append(lines, typed{"listener", "", &r.Listeners[i]})
	}
	for i := range r.Published {
		lines = append(lines, typed{"published", "", &r.Published[i]})
	}
	for i := range r.Sysctls {
		lines = append(lines, typed{"sysctl", "", &r.Sysctls[i]})
	}
	if r.Ephemeral != nil {
		lines = append(lines, typed{"ephemeral", "", r.Ephemeral})
	}
	for i := range r.Checks {
		lines = append(lines, typed{"check", "", &r.Checks[i]})
	}
	for i := range r.Incomplete {
		lines = append(lines, typed{"incomplete", "", &r.Incomplete[i]})
	}
	for _, l := range lines {
		if err := Line(w, l); err != nil {
			return err
		}
	}
	return nil
}
