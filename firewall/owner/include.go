package owner

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
)

var includeLine = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^include\s+"([^"]*)"\s*;?$`) })

// Includes are the patterns of files that a file of nft commands includes at its
// top level (nft(8), INCLUDING FILES): those with a full path.
func Includes(data []byte) []string {
	var out []string
	for line := range bytes.Lines(data) {
		if m := includeLine().FindStringSubmatch(code(string(line))); m != nil && path.IsAbs(m[1]) {
			out = append(out, m[1])
		}
	}
	return out
}

// included are the files that a pattern names, in the order in which nft reads them.
func (h *Host) included(pattern string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(h.Files)), func(name string) bool {
		ok, err := path.Match(pattern, name)
		return err != nil || !ok || strings.HasPrefix(path.Base(name), ".")
	})
}

// loaded are a file of nft commands and all that it includes, down to a depth.
func (h *Host) loaded(name string, depth int) []string {
	out := []string{name}
	if depth == 0 {
		return out
	}
	for _, pattern := range Includes(h.Files[name]) {
		for _, f := range h.included(pattern) {
			out = append(out, h.loaded(f, depth-1)...)
		}
	}
	return out
}

// flat is the text that nft reads in the end, with one file exchanged.
func (h *Host) flat(name string, depth int, changed string, text []byte) []byte {
	data := h.Files[name]
	if name == changed {
		data = text
	}
	if depth == 0 {
		return data
	}
	var out bytes.Buffer
	for line := range bytes.Lines(data) {
		m := includeLine().FindStringSubmatch(code(string(line)))
		if m == nil || !path.IsAbs(m[1]) {
			out.Write(line)
			continue
		}
		for _, f := range h.included(m[1]) {
			out.Write(h.flat(f, depth-1, changed, text))
			out.WriteByte('\n')
		}
	}
	return out.Bytes()
}

// includeDepth bounds includes of includes.
const includeDepth = 3

// persistNFT finds the one file, of those that nftables.service loads, in which the
// chain stands, and puts the rule there.
func persistNFT(name string, h *Host, i *Insertion) (*Patch, error) {
	var patch *Patch
	var why error
	for _, f := range h.loaded(name, includeDepth) {
		after, err := insertNFT(h.Files[f], h, i)
		switch {
		case err != nil && (why == nil || f == name):
			why = err
		case err == nil && patch != nil && patch.File != f:
			return nil, fmt.Errorf("the chain stands in %s and in %s", patch.File, f)
		case err == nil:
			patch = &Patch{File: f, After: after, Check: []string{"nft", "-c", "-f", "-"}}
			if f != name {
				patch.CheckWith = h.flat(name, includeDepth, f, after)
			}
		}
	}
	if patch == nil {
		return nil, why
	}
	return patch, nil
}
