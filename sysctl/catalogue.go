package sysctl

import "strings"

// Catalogue returns every entry, grouped by area. The entries are shared:
// callers do not change them.
func Catalogue() []*Entry { return catalogue }

// catalogue is built once from the areas' tables and never changed.
var catalogue = concat(
	inboundEntries(),
	outboundEntries(),
	conntrackEntries(),
	routingEntries(),
	memoryEntries(),
	keepaliveEntries(),
	descriptorEntries(),
	goneEntries(),
)

func concat(areas ...[]*Entry) []*Entry {
	var out []*Entry
	for _, a := range areas {
		out = append(out, a...)
	}
	return out
}

// Find returns the entry of a key, per-interface keys included.
func Find(k Key) (*Entry, bool) {
	if e, ok := byKey[k]; ok {
		return e, true
	}
	if head, iface, tail, ok := k.perInterface(); ok && iface != "" {
		e, found := byTemplate[template{head, tail}]
		return e, found
	}
	return nil, false
}

// FindID returns the entry of a check id ("sysctl.net.core.somaxconn").
func FindID(id string) (*Entry, bool) {
	k, ok := strings.CutPrefix(id, "sysctl.")
	if !ok {
		return nil, false
	}
	e, ok := byKey[Key(k)]
	return e, ok
}

var byKey = index(catalogue)

// template is a per-interface key without its interface.
type template struct{ head, tail string }

var byTemplate = templates(catalogue)

func templates(entries []*Entry) map[template]*Entry {
	m := map[template]*Entry{}
	for _, e := range entries {
		if _, per := e.Key.Interface(); !per {
			continue
		}
		if head, iface, tail, _ := e.Key.perInterface(); iface == "*" {
			m[template{head, tail}] = e
		}
	}
	return m
}

func index(entries []*Entry) map[Key]*Entry {
	m := make(map[Key]*Entry, len(entries))
	for _, e := range entries {
		m[e.Key] = e
	}
	return m
}
