package sysctl

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
)

// NodeKind says what stands at a path of a Tree.
type NodeKind string

// The kinds of a Node.
const (
	NodeDir     NodeKind = "dir"     // a directory; Entries is set when it was listed
	NodeFile    NodeKind = "file"    // a regular file; Data is its content
	NodeLink    NodeKind = "link"    // a symbolic link; Target is what it says
	NodeOther   NodeKind = "other"   // FIFO, device, socket: never opened
	NodeMissing NodeKind = "missing" // looked for and not there
)

// Node is one captured path.
type Node struct {
	Kind    NodeKind `json:"kind"`
	Target  string   `json:"target,omitempty"`  // of a link, as stored
	Data    []byte   `json:"data,omitempty"`    // of a file
	Entries []string `json:"entries,omitempty"` // of a listed directory: names, sorted
	Listed  bool     `json:"listed,omitempty"`  // whether Entries is the whole directory
	Null    bool     `json:"null,omitempty"`    // of NodeOther: it is the null device
	Cut     bool     `json:"cut,omitempty"`     // content or listing stops at the size limit
	Err     string   `json:"err,omitempty"`     // why it could not be read
}

// Tree is a capture of those configuration files that decide about sysctls,
// with the links between them: absolute paths inside the audited root. It is
// plain data; the loaders are simulated on it, never on the disk.
type Tree struct {
	Nodes map[string]*Node `json:"nodes"`
}

// errNotCaptured says that a path was never looked at: the answer is a gap and
// not "missing".
var errNotCaptured = errors.New("not captured")

// maxLinks is how many symbolic links the kernel follows (MAXSYMLINKS, namei.c).
const maxLinks = 40

// resolve follows p to its final node, with links taken inside the tree: an
// absolute target starts at the tree's root and ".." never climbs above it, as
// for a process whose root directory it is. It returns the path without links.
func (t *Tree) resolve(p string, followLast bool) (string, *Node, error) {
	todo := steps(p)
	done := []string{}
	links := 0
	for len(todo) > 0 {
		c := todo[0]
		todo = todo[1:]
		if c == "." {
			continue
		}
		if c == ".." {
			if len(done) > 0 {
				done = done[:len(done)-1]
			}
			continue
		}
		cur := "/" + strings.Join(append(slices.Clone(done), c), "/")
		n := t.Nodes[cur]
		if n == nil {
			// A directory that was listed completely answers for names it lacks.
			parent := t.Nodes["/"+strings.Join(done, "/")]
			if parent != nil && parent.Kind == NodeDir && parent.Listed && !parent.Cut && !slices.Contains(parent.Entries, c) {
				return cur, nil, pathError("open", p, syscall.ENOENT)
			}
			return cur, nil, pathError("open", p, errNotCaptured)
		}
		switch n.Kind {
		case NodeMissing:
			return cur, nil, pathError("open", p, syscall.ENOENT)
		case NodeLink:
			if len(todo) == 0 && !followLast {
				return cur, n, nil
			}
			if links++; links > maxLinks {
				return cur, nil, pathError("open", p, syscall.ELOOP)
			}
			if n.Err != "" {
				return cur, nil, pathError("readlink", p, errors.New(n.Err))
			}
			if strings.HasPrefix(n.Target, "/") {
				done = done[:0]
			}
			todo = append(steps(n.Target), todo...)
		case NodeDir:
			done = append(done, c)
		default:
			if len(todo) > 0 {
				return cur, nil, pathError("open", p, syscall.ENOTDIR)
			}
			return cur, n, nil
		}
	}
	final := "/" + strings.Join(done, "/")
	n := t.Nodes[final]
	if n == nil {
		return final, nil, pathError("open", p, errNotCaptured)
	}
	return final, n, nil
}

func pathError(op, p string, err error) error { return &fs.PathError{Op: op, Path: p, Err: err} }

// splitPath cuts a path into its components, without empty ones and ".".
func splitPath(p string) []string {
	return slices.DeleteFunc(strings.Split(p, "/"), func(c string) bool { return c == "" || c == "." })
}

// steps is splitPath for a walk: a path that ends in a slash leads to a
// directory or nowhere, which a last "." stands for.
func steps(p string) []string {
	out := splitPath(p)
	if len(out) > 0 && (strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.")) {
		out = append(out, ".")
	}
	return out
}

// list returns the names in a directory.
func (t *Tree) list(dir string) (resolved string, names []string, err error) {
	resolved, n, err := t.resolve(dir, true)
	if err != nil {
		return resolved, nil, err
	}
	switch {
	case n.Kind != NodeDir:
		return resolved, nil, pathError("open", dir, syscall.ENOTDIR)
	case n.Err != "":
		return resolved, nil, pathError("read", dir, errors.New(n.Err))
	case !n.Listed:
		return resolved, nil, pathError("read", dir, errNotCaptured)
	case n.Cut:
		return resolved, n.Entries, pathError("read", dir, errTooBig)
	}
	return resolved, n.Entries, nil
}

// errTooBig marks content that was cut at a limit.
var errTooBig = errors.New("too big, read only in part")

// errWouldBlock marks a node that a loader would open and hang on.
var errWouldBlock = errors.New("not a regular file: a loader that opens it blocks or never ends")

// read returns the content that a loader sees when it opens p for reading and
// reads to the end. A directory reads as nothing (EISDIR after a successful
// fopen); so does the null device.
func (t *Tree) read(p string) ([]byte, error) {
	_, n, err := t.resolve(p, true)
	if err != nil {
		return nil, err
	}
	switch {
	case n.Kind == NodeDir:
		return nil, pathError("read", p, syscall.EISDIR)
	case n.Kind == NodeOther && n.Null:
		return nil, nil
	case n.Kind == NodeOther:
		return nil, pathError("read", p, errWouldBlock)
	case n.Err != "":
		return nil, pathError("read", p, errors.New(n.Err))
	case n.Cut:
		return n.Data, pathError("read", p, errTooBig)
	}
	return n.Data, nil
}

// ReadFile returns the captured content of a file, links followed inside the
// tree. errors.Is(err, fs.ErrNotExist) means that it was looked for and is not
// there; any other error is a gap.
func (t *Tree) ReadFile(p string) ([]byte, error) { return t.read(p) }

// ReadDir returns the names in a captured directory, sorted.
func (t *Tree) ReadDir(p string) ([]string, error) {
	_, names, err := t.list(p)
	return names, err
}

// Exists says whether something stands at p, links followed.
func (t *Tree) Exists(p string) (bool, error) {
	_, _, err := t.resolve(p, true)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP):
		return false, nil
	}
	return false, err
}

// Gaps lists what could not be captured, as "what: why", sorted.
func (t *Tree) Gaps() []Gap {
	var gaps []Gap
	for p, n := range t.Nodes {
		switch {
		case n.Err != "":
			gaps = append(gaps, Gap{What: "read " + p, Why: n.Err})
		case n.Cut:
			gaps = append(gaps, Gap{What: "read " + p, Why: errTooBig.Error()})
		}
	}
	slices.SortFunc(gaps, func(a, b Gap) int { return strings.Compare(a.What+a.Why, b.What+b.Why) })
	return gaps
}

// Gap is something that could not be read or decided, and why.
type Gap struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// String is "what: why".
func (g Gap) String() string { return fmt.Sprintf("%s: %s", g.What, g.Why) }

// treeGlobber lets glob(3) be answered from a tree.
type treeGlobber struct{ t *Tree }

func (g treeGlobber) names(dir string) []string {
	_, names, _ := g.t.list(dir)
	return names
}

func (g treeGlobber) exists(p string) bool {
	_, _, err := g.t.resolve(p, false)
	return err == nil
}

func (g treeGlobber) isDir(p string) bool {
	_, n, err := g.t.resolve(p, true)
	return err == nil && n.Kind == NodeDir
}

// baseName is the last component of a path.
func baseName(p string) string { return path.Base(p) }
