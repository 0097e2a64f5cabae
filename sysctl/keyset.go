package sysctl

import (
	"slices"
	"strings"
)

// KeySet is the set of settings that exist in a kernel: what a loader finds
// when it opens a path or expands a glob below /proc/sys.
type KeySet struct {
	files  map[string]bool
	dirs   map[string][]string // directory → sorted names
	sorted []Key
	// ask is asked for what files and dirs do not hold; nil: that does not exist.
	ask *keyQuestions
}

// NewKeySet builds the set from keys.
func NewKeySet(keys []Key) *KeySet {
	s := &KeySet{files: make(map[string]bool, len(keys)), dirs: map[string][]string{"": nil}, sorted: make([]Key, 0, len(keys))}
	seen := make(map[string]bool, len(keys))
	for _, k := range keys {
		p := k.Path()
		if p == "" || s.files[p] {
			continue
		}
		s.files[p] = true
		s.sorted = append(s.sorted, k)
		for p != "" {
			dir, name := "", p
			if i := strings.LastIndexByte(p, '/'); i >= 0 {
				dir, name = p[:i], p[i+1:]
			}
			if seen[p] {
				break
			}
			seen[p] = true
			s.dirs[dir] = append(s.dirs[dir], name)
			p = dir
		}
	}
	for _, names := range s.dirs {
		slices.Sort(names)
	}
	slices.Sort(s.sorted)
	return s
}

// Has says whether the key exists.
func (s *KeySet) Has(k Key) bool { return s.isFile(k.Path()) }

// Keys returns all keys, sorted; of a set that asks, those that it was asked for.
func (s *KeySet) Keys() []Key {
	return slices.Clone(s.sorted)
}

func (s *KeySet) isFile(rel string) bool {
	return s.files[rel] || s.ask != nil && s.ask.kind(s, rel) == keyFile
}

func (s *KeySet) hasDir(rel string) bool {
	_, known := s.dirs[rel]
	return known || s.ask != nil && s.ask.kind(s, rel) == keyDir
}

// list gives the names in a directory, sorted.
func (s *KeySet) list(rel string) []string {
	if s.ask != nil {
		s.ask.list(s, rel)
	}
	return s.dirs[rel]
}

// lookup walks an absolute path through /proc/sys as the kernel does: empty
// components and "." are skipped, ".." climbs, each directory on the way must
// exist. It returns the path below /proc/sys.
func (s *KeySet) lookup(p string) (rel string, dir, ok bool) {
	var stack []string
	isFile := false
	for _, c := range strings.Split(p, "/") {
		if c == "" || c == "." {
			if c == "." && isFile {
				return "", false, false
			}
			continue
		}
		if isFile {
			return "", false, false
		}
		if c == ".." {
			if len(stack) > 0 {
				stack = stack[:len(stack)-1]
			}
			continue
		}
		stack = append(stack, c)
		switch here := strings.Join(stack, "/"); {
		case here == "proc" || here == "proc/sys":
		case strings.HasPrefix(here, "proc/sys/"):
			here = here[len("proc/sys/"):]
			if s.isFile(here) {
				isFile = true
			} else if !s.hasDir(here) {
				return "", false, false
			}
		default:
			return "", false, false
		}
	}
	if isFile && strings.HasSuffix(p, "/") {
		return "", false, false
	}
	full := strings.Join(stack, "/")
	rel, inside := strings.CutPrefix(full, "proc/sys/")
	if !inside {
		return "", true, false
	}
	return rel, !isFile, true
}

func (s *KeySet) names(dir string) []string {
	switch rel, isDir, ok := s.lookup(dir); {
	case ok && isDir:
		return s.list(rel)
	case isDir && strings.Trim(dir, "/") == "proc/sys":
		return s.list("")
	}
	return nil
}

func (s *KeySet) exists(p string) bool {
	_, dir, ok := s.lookup(p)
	return ok || dir
}

func (s *KeySet) isDir(p string) bool {
	_, dir, _ := s.lookup(p)
	return dir
}
