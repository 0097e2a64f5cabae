package sysctl

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// DropInPath is the file of this program. No name wins under every loader:
// this one sorts behind 99-sysctl.conf, so that systemd-sysctl takes it last;
// procps reads /etc/sysctl.conf after it all the same. What it achieves is
// simulated before anything is promised: see Tree.With and NewHost.
const DropInPath = "/etc/sysctl.d/99-zz-hostaudit.conf"

// ModulesDropInPath names kernel modules whose keys the drop-in sets.
const ModulesDropInPath = "/etc/modules-load.d/hostaudit.conf"

// dropInHeader tells a reader whose file it is.
const dropInHeader = "# Written by hostaudit (fix). One reason a line; undo with: hostaudit rollback\n"

// Setting is one line of the drop-in.
type Setting struct {
	Key    Key
	Value  string
	Reason string
}

// DropIn is the content of this program's own sysctl.d file.
type DropIn struct{ settings map[Key]Setting }

// ErrForeign says that a file holds lines that this program did not write.
var ErrForeign = errors.New("the file was edited by somebody else")

// ParseDropIn reads what RenderDropIn wrote. Anything else is ErrForeign: a
// file that somebody has edited is not overwritten.
func ParseDropIn(data []byte) (*DropIn, error) {
	d := &DropIn{settings: map[Key]Setting{}}
	if len(data) == 0 {
		return d, nil
	}
	reason := ""
	for i, line := range strings.Split(string(data), "\n") {
		switch {
		case line == "":
		case strings.HasPrefix(line, "# "):
			reason = line[2:]
		default:
			name, value, ok := strings.Cut(line, " = ")
			k := Key(name)
			if !ok || k.CheckWritable() != nil || ParseKey(name) != k {
				return nil, fmt.Errorf("line %d: %w", i+1, ErrForeign)
			}
			d.settings[k] = Setting{k, value, reason}
			reason = ""
		}
	}
	if !bytes.Equal(d.Render(), data) {
		return nil, ErrForeign
	}
	return d, nil
}

// Set adds changes; of a key that is there already the new value is kept.
// Values come from PlanChange, which has merged them with the live ones.
func (d *DropIn) Set(changes ...Change) *DropIn {
	out := &DropIn{settings: maps.Clone(d.settings)}
	if out.settings == nil {
		out.settings = map[Key]Setting{}
	}
	for _, c := range changes {
		s := Setting{c.Key, c.After, oneLine(c.Reason)}
		if old, ok := out.settings[c.Key]; ok && c.Key != keyPortRange {
			// The file may hold more than is live: lists and bounds are merged.
			if e, in := Find(c.Key); in && e.LargerIsFine {
				if merged, _, err := e.Shape.Raise(old.Value, c.After); err == nil {
					s.Value = merged
				}
			}
		}
		out.settings[c.Key] = s
	}
	return out
}

// Remove takes keys out.
func (d *DropIn) Remove(keys ...Key) *DropIn {
	out := &DropIn{settings: maps.Clone(d.settings)}
	for _, k := range keys {
		delete(out.settings, k)
	}
	return out
}

// Settings returns the lines, sorted by key.
func (d *DropIn) Settings() []Setting {
	return slices.SortedFunc(maps.Values(d.settings), func(a, b Setting) int { return strings.Compare(string(a.Key), string(b.Key)) })
}

// Render is the file's text; empty when there is no setting.
func (d *DropIn) Render() []byte {
	if len(d.settings) == 0 {
		return nil
	}
	var b strings.Builder
	b.WriteString(dropInHeader)
	for _, s := range d.Settings() {
		reason := s.Reason
		if reason == "" {
			reason = "(no reason given)"
		}
		fmt.Fprintf(&b, "\n# %s\n%s = %s\n", reason, s.Key, s.Value)
	}
	return []byte(b.String())
}

// Modules names the kernel modules that must be loaded before the file is
// applied, sorted.
func (d *DropIn) Modules() []string {
	var out []string
	for _, s := range d.Settings() {
		if m := moduleOf(s.Key); m != "" && !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	slices.Sort(out)
	return out
}

// RenderModules is the text of a modules-load.d file.
func RenderModules(modules []string) []byte {
	if len(modules) == 0 {
		return nil
	}
	return []byte("# Written by hostaudit (fix): the keys of these modules are set in " + DropInPath + "\n" + strings.Join(modules, "\n") + "\n")
}

// With returns the tree as it would be with one more file, for simulating a
// plan. Empty data takes the file away. The path's directories are added where
// they are missing.
func (t *Tree) With(p string, data []byte) *Tree {
	out := &Tree{Nodes: maps.Clone(t.Nodes)}
	components := splitPath(p)
	dir := "/"
	for i, c := range components {
		parent := *nodeOr(out.Nodes[dir], &Node{Kind: NodeDir, Listed: true})
		last := i == len(components)-1
		if parent.Kind != NodeDir {
			parent = Node{Kind: NodeDir, Listed: true}
		}
		has := slices.Contains(parent.Entries, c)
		switch {
		case last && len(data) == 0:
			parent.Entries = slices.DeleteFunc(slices.Clone(parent.Entries), func(n string) bool { return n == c })
		case parent.Listed && !has:
			parent.Entries = append(slices.Clone(parent.Entries), c)
			slices.Sort(parent.Entries)
		}
		out.Nodes[dir] = &parent
		dir = strings.TrimSuffix(dir, "/") + "/" + c
		if n := out.Nodes[dir]; n != nil && n.Kind == NodeLink && !last {
			// The directory is a link: the file lands where it leads.
			resolved, _, err := out.resolve(dir, true)
			if err == nil {
				return out.With(resolved+"/"+strings.Join(components[i+1:], "/"), data)
			}
		}
	}
	if len(data) == 0 {
		out.Nodes[dir] = &Node{Kind: NodeMissing}
	} else {
		out.Nodes[dir] = &Node{Kind: NodeFile, Data: slices.Clone(data)}
	}
	return out
}

func nodeOr(n, general *Node) *Node {
	if n == nil || n.Kind == NodeMissing {
		return general
	}
	return n
}
