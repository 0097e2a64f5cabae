package sysctl

import (
	"fmt"
	"strings"
)

// Explain is the entry as a person wants to read it: what it is, what it is
// not, when this program speaks about it, and where to read on. Plain text,
// paragraphs separated by empty lines, at most 78 columns.
func (e *Entry) Explain() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n\n", e.Key, e.Title)
	b.WriteString(wrap(e.Meaning, ""))
	facts := [][2]string{
		{"unit", e.unitText()},
		{"default", e.defaultText()},
		{"kernels", e.kernelText()},
		{"scope", e.Scope.text()},
		{"when we speak", e.Class.text()},
		{"looks at", strings.Join(e.Decides, "; ")},
		{"recommended", e.Advice},
	}
	b.WriteByte('\n')
	for _, f := range facts {
		if f[1] != "" {
			label := fmt.Sprintf("%-15s", f[0]+":")
			b.WriteString(label + wrap(f[1], strings.Repeat(" ", len(label))))
		}
	}
	for _, r := range lintRules {
		if r.covers(e.Key) {
			fmt.Fprintf(&b, "\n%s", wrap(fmt.Sprintf("Found as %s (%s, %s): %s. Instead: %s.", r.ID, r.Title, r.Severity, r.Why, r.Instead), "  "))
		}
	}
	if asked := e.asked(); asked != "" {
		b.WriteString("\n" + asked)
	}
	if len(e.Refs) > 0 {
		b.WriteString("\n")
		for _, r := range e.Refs {
			b.WriteString(r + "\n")
		}
	}
	return b.String()
}

func (e *Entry) unitText() string {
	switch {
	case e.Unit == UnitBool:
		return "switch (0 or 1)"
	case e.Unit != UnitNone && e.Fields > 1:
		return fmt.Sprintf("%d numbers, %s", e.Fields, e.Unit)
	}
	return string(e.Unit)
}

func (e *Entry) defaultText() string {
	switch {
	case e.Default != "" && e.DefaultNote != "":
		return e.Default + " (" + e.DefaultNote + ")"
	case e.DefaultNote != "":
		return e.DefaultNote
	case e.Default == "" && e.Shape == ShapePorts:
		return "empty"
	}
	return e.Default
}

func (e *Entry) kernelText() string {
	var parts []string
	if e.Since != (Version{}) {
		parts = append(parts, "since Linux "+e.Since.String())
	}
	if e.Removed != (Version{}) {
		parts = append(parts, "gone since Linux "+e.Removed.String())
	}
	if e.Module != "" {
		parts = append(parts, "with module "+e.Module)
	}
	return strings.Join(parts, ", ")
}

func (s Scope) text() string {
	return map[Scope]string{
		ScopeNamespace: "each network namespace has its own",
		ScopeGlobal:    "one for the machine; read-only in containers",
		ScopeInitial:   "one for the machine; does not exist in containers",
		ScopeHost:      "one for the machine",
		ScopeProcess:   "each process or service",
		ScopeDevice:    "each network device",
	}[s]
}

func (c Class) text() string {
	return map[Class]string{
		ClassEvidence: "only when something measured on this host says so",
		ClassWrong:    "when it is wrong under any load",
		ClassNever:    "never recommended; reported where it is found",
		ClassInfo:     "never: it is shown for information",
	}[c]
}

// asked lists what frameworks ask for, with our verdict.
func (e *Entry) asked() string {
	var b strings.Builder
	for _, p := range Profiles() {
		for _, a := range p.Asked {
			if a.Key == e.Key {
				b.WriteString(wrap(fmt.Sprintf("%s, asks for %s (profile %s). Our verdict, %s: %s.", a.By, a.Value, p.Name, a.Verdict, a.Why), "  "))
			}
		}
	}
	return b.String()
}

// wrap breaks text at 78 columns; further lines begin with indent, and the
// first is taken to begin as far in.
func wrap(text, indent string) string {
	const width = 78
	var b strings.Builder
	col := len(indent)
	for i, word := range strings.Fields(text) {
		n := len([]rune(word))
		switch {
		case i == 0:
		case col+1+n > width:
			b.WriteString("\n" + indent)
			col = len(indent)
		default:
			b.WriteByte(' ')
			col++
		}
		b.WriteString(word)
		col += n
	}
	b.WriteByte('\n')
	return b.String()
}
