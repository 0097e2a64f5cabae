package sysctl

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// AskKeys gives a set that looks up each setting below dir (ProcSys) when it is
// asked for, and lists a directory when a pattern goes through it: a host has more
// than a thousand settings, its files name a few dozen, and to list them all takes
// longer than to read those. The questions are those of the calling thread's network
// namespace, and end with ctx; [KeySet.Settle] ends them.
func AskKeys(ctx context.Context, dir string) *KeySet {
	return &KeySet{files: map[string]bool{}, dirs: map[string][]string{"": nil},
		ask: &keyQuestions{lister: keyLister{ctx: ctx, dir: dir}, absent: map[string]bool{}, listed: map[string]bool{}, alike: map[string][]string{}}}
}

// Settle ends the questions: from now on what was asked for before is answered as
// then, and nothing else exists but what could be read. Settings that an interface
// was found to lack are taken out of what was read. It gives what could not be
// looked up.
func (s *KeySet) Settle(read Values) []Gap {
	for k, v := range read {
		if v.State != Absent {
			s.files[k.Path()] = true
		} else if _, named := byKey[k]; !named {
			delete(read, k)
		}
	}
	for p := range s.files {
		s.sorted = append(s.sorted, KeyFromPath(p))
	}
	slices.Sort(s.sorted)
	gaps := s.ask.lister.gaps
	s.ask = nil
	return gaps
}

// keyQuestions remembers what was asked of the kernel, beside the answers that
// stand in the set.
type keyQuestions struct {
	lister keyLister
	absent map[string]bool
	listed map[string]bool
	// alike are the names in one interface's directory, by the directory of all.
	alike map[string][]string
}

type keyKind int

const (
	keyNone keyKind = iota
	keyFile
	keyDir
)

// kind looks up what the set does not hold yet.
func (q *keyQuestions) kind(s *KeySet, rel string) keyKind {
	if _, known := s.dirs[rel]; known {
		return keyDir
	}
	if q.absent[rel] || len(s.files) >= maxKeys || q.lister.ctx.Err() != nil || slices.Contains(strings.Split(rel, "/"), "..") {
		return keyNone
	}
	var st unix.Stat_t
	err := unix.Fstatat(unix.AT_FDCWD, q.lister.dir+"/"+rel, &st, 0)
	switch {
	case err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
		s.dirs[rel] = nil
		return keyDir
	case err == nil:
		s.files[rel] = true
		return keyFile
	case !isAbsent(err) && !errors.Is(err, unix.ENAMETOOLONG) && !errors.Is(err, unix.EINVAL): // EINVAL: a name with a zero in it
		q.lister.gaps = append(q.lister.gaps, Gap{What: "look up " + q.lister.dir + "/" + rel, Why: err.Error()})
	}
	q.absent[rel] = true
	return keyNone
}

// list reads the names in a directory into the set, once. Interfaces all have the
// same keys (see [ListKeys]).
func (q *keyQuestions) list(s *KeySet, rel string) {
	if q.listed[rel] || q.lister.ctx.Err() != nil {
		return
	}
	q.listed[rel] = true
	parent, name := path.Split(rel)
	alike := perInterface(strings.TrimSuffix(parent, "/")) && name != "all" && name != "default"
	if names := q.alike[parent]; alike && names != nil {
		s.dirs[rel] = names
		for _, n := range names {
			s.files[rel+"/"+n] = true
		}
		return
	}
	entries, err := q.lister.read(rel)
	if err != nil {
		if !isAbsent(err) {
			q.lister.gaps = append(q.lister.gaps, Gap{What: "list " + q.lister.dir + "/" + rel, Why: err.Error()})
		}
		return
	}
	if len(s.files)+len(entries) > maxKeys {
		q.lister.gaps = append(q.lister.gaps, Gap{What: "list " + q.lister.dir + "/" + rel, Why: fmt.Sprintf("more than %d keys; they were left out", maxKeys)})
		return
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.name)
		switch p := strings.TrimPrefix(rel+"/"+e.name, "/"); {
		case !e.dir:
			s.files[p] = true
		case s.dirs[p] == nil:
			s.dirs[p] = nil
		}
	}
	slices.Sort(names)
	s.dirs[rel] = names
	if alike {
		q.alike[parent] = names
	}
}

// interfaceKeys are the keys of the catalogue that interfaces may have; whether they
// do shows when they are read.
func (s *KeySet) interfaceKeys() []Key {
	var out []Key
	for t := range byTemplate {
		dir := strings.TrimSuffix(Key(t.head).Path(), "/")
		for _, name := range s.list(dir) {
			out = append(out, KeyFromPath(dir+"/"+name+"/"+strings.TrimPrefix(t.tail, ".")))
		}
	}
	return out
}
