package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// decoder validates the nodes of one document.
type decoder struct{ source string }

// decode reads one YAML document into values by key: checked text for scalars,
// []audit.Service and []audit.Waiver for the lists.
func decode(data []byte, source string) (map[string]any, error) {
	d := &decoder{source}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return map[string]any{}, nil
	case err != nil:
		return nil, d.syntax(err)
	}
	var more yaml.Node
	if err := dec.Decode(&more); err == nil {
		return nil, d.fail(&more, "", "a second document; one is enough")
	} else if !errors.Is(err, io.EOF) {
		return nil, d.syntax(err)
	}
	if err := d.noAliases(&doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return map[string]any{}, nil
	}
	keys := []string{"services", "accept"}
	for _, k := range scalars {
		keys = append(keys, k.name)
	}
	out := map[string]any{}
	err := d.mapping(doc.Content[0], "", keys, func(key string, n *yaml.Node) error {
		var err error
		switch key {
		case "services":
			out[key], err = d.services(n)
		case "accept":
			out[key], err = d.waivers(n)
		default:
			k, _ := scalar(key)
			out[key], err = d.scalar(n, key, k.kind, k.check)
		}
		return err
	})
	return out, err
}

func (d *decoder) fail(n *yaml.Node, key, format string, args ...any) error {
	return &Error{Source: d.source, Line: n.Line, Key: key, Why: fmt.Sprintf(format, args...)}
}

var yamlLine = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`) })

// syntax turns the parser's error into one of ours.
func (d *decoder) syntax(err error) error {
	m := yamlLine().FindStringSubmatch(strings.SplitN(err.Error(), "\n", 2)[0])
	if m == nil {
		return &Error{Source: d.source, Why: err.Error()}
	}
	line, _ := strconv.Atoi(m[1])
	return &Error{Source: d.source, Line: line, Why: m[2]}
}

// noAliases refuses anchors and aliases: nobody needs them here, and a few lines
// of them expand to gigabytes.
func (d *decoder) noAliases(n *yaml.Node) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return d.fail(n, "", "anchors and aliases are not allowed")
	}
	for _, c := range n.Content {
		if err := d.noAliases(c); err != nil {
			return err
		}
	}
	return nil
}

// mapping walks a mapping whose keys are known, each at most once.
func (d *decoder) mapping(n *yaml.Node, at string, keys []string, f func(string, *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode || n.Tag != "!!map" {
		return d.fail(n, at, "%s where key: value is expected", nodeWord(n))
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		name := k.Value
		if at != "" {
			name = at + "." + k.Value
		}
		if k.Kind != yaml.ScalarNode || !slices.Contains(keys, k.Value) {
			if k.Kind != yaml.ScalarNode {
				name = at
			}
			return d.fail(k, name, "no such key%s", nearest(k.Value, keys))
		}
		if line, twice := seen[k.Value]; twice {
			return d.fail(k, name, "stands twice, first in line %d", line)
		}
		seen[k.Value] = k.Line
		if err := f(k.Value, v); err != nil {
			return err
		}
	}
	return nil
}

// list walks a list; at names its elements.
func (d *decoder) list(n *yaml.Node, key string, f func(at string, n *yaml.Node) error) error {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil // `services:` with nothing below
	}
	if n.Kind != yaml.SequenceNode || n.Tag != "!!seq" {
		return d.fail(n, key, "%s where a list is expected", nodeWord(n))
	}
	for i, e := range n.Content {
		if err := f(fmt.Sprintf("%s[%d]", key, i), e); err != nil {
			return err
		}
	}
	return nil
}

// scalar takes one value of a type and checks it.
func (d *decoder) scalar(n *yaml.Node, key string, want kind, check func(string) error) (string, error) {
	if n.Kind != yaml.ScalarNode || n.Tag != string(want) {
		return "", d.fail(n, key, "%s where %s is expected", nodeWord(n), kindWord(want))
	}
	if check != nil {
		if err := check(n.Value); err != nil {
			return "", d.fail(n, key, "%s", err)
		}
	}
	return n.Value, nil
}

func kindWord(k kind) string {
	switch k {
	case integer:
		return "a number"
	case boolean:
		return "true or false"
	default:
		return "text"
	}
}

func nodeWord(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return "the switch " + n.Value
	case "!!timestamp":
		return "the date " + n.Value
	case "!!str":
		return fmt.Sprintf("the text %q", n.Value)
	}
	return fmt.Sprintf("a value of type %q", n.Tag)
}

// place names a node for evidence in the report: "hostaudit.yaml:4".
func (d *decoder) place(n *yaml.Node) string {
	if strings.HasPrefix(d.source, "environment ") {
		return d.source
	}
	return fmt.Sprintf("%s:%d", filepath.Base(d.source), n.Line)
}
