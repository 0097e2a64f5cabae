package sysctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of a capture. They are far above what any real host has and far below
// what would hurt: a loader reads a gigabyte file to its end, this program says
// that it did not.
const (
	maxFileBytes  = 4 << 20  // of one file
	maxTreeBytes  = 64 << 20 // of all files together
	maxDirEntries = 8192     // of one directory
	maxTreeNodes  = 65536
)

// CaptureFiles reads every file that decides about sysctls from beneath root
// ("/" or the DIR of --root): the directories of both loaders, /etc/sysctl.conf,
// the files of programs that override sysctls later (ufw, tuned, networkd, …)
// and what tells which loader runs at boot. Links are resolved inside root and
// never leave it; only regular files are opened, without blocking, and at most
// 4 MiB of each is kept.
//
// extra names further files, for example the ones given to `sysctl -p`;
// patterns are allowed in their last component.
//
// What could not be read is marked in the tree and listed by Tree.Gaps. The
// error is about root itself or the context.
func CaptureFiles(ctx context.Context, root string, extra ...string) (*Tree, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root %s: %w", root, err)
	}
	defer unix.Close(fd)
	c := &capturer{ctx: ctx, root: fd, tree: &Tree{Nodes: map[string]*Node{"/": {Kind: NodeDir}}}}
	for _, dir := range sysctlDirs {
		c.dir(dir, func(name string) bool { return strings.HasSuffix(name, ".conf") })
	}
	c.file(sysctlConf)
	captureBoot(c)
	for _, p := range extra {
		c.pattern(p)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("read sysctl configuration below %s: %w", root, err)
	}
	return c.tree, nil
}

// capturer walks a root directory and records what it meets.
type capturer struct {
	ctx   context.Context
	root  int
	tree  *Tree
	bytes int
}

// dir lists a directory and captures those of its entries that keep wants.
func (c *capturer) dir(p string, keep func(name string) bool) []string {
	resolved, n := c.walk(p)
	if n == nil || n.Kind != NodeDir {
		return nil
	}
	if !n.Listed && n.Err == "" {
		c.list(resolved, n)
	}
	var kept []string
	for _, name := range n.Entries {
		if keep(name) {
			c.file(p + "/" + name)
			kept = append(kept, name)
		}
	}
	return kept
}

// file captures a file's content, and every link on the way to it.
func (c *capturer) file(p string) *Node {
	resolved, n := c.walk(p)
	if n == nil {
		return nil
	}
	if n.Kind == NodeFile && n.Data == nil && n.Err == "" {
		c.content(resolved, n)
	}
	return n
}

// pattern captures the files that a pattern may name: its literal self, and all
// of its directory whose names it could match.
func (c *capturer) pattern(p string) {
	c.file(p)
	alternatives, braces := expandBrace(p)
	for _, a := range alternatives {
		c.pattern(a)
	}
	if !braces && hasMeta(p) {
		dir, name := path.Split(p)
		c.dir(path.Clean(dir), func(n string) bool { return fnmatch(name, n) })
	}
}

// text is the content of a captured file, empty where there is none.
func (c *capturer) text(p string) string {
	if n := c.file(p); n != nil && n.Kind == NodeFile {
		return string(n.Data)
	}
	return ""
}

// walk follows p component by component from the root's descriptor, never
// following a link by the kernel's hand, and records each node. It returns the
// final node, or nil where the path ends in nothing.
func (c *capturer) walk(p string) (string, *Node) {
	todo := splitPath(p)
	done := []string{}
	links := 0
	cur, err := unix.Dup(c.root)
	if err != nil {
		c.tree.Nodes[p] = &Node{Kind: NodeOther, Err: err.Error()}
		return p, nil
	}
	defer func() { unix.Close(cur) }()
	for len(todo) > 0 {
		if c.ctx.Err() != nil {
			return p, nil
		}
		name := todo[0]
		todo = todo[1:]
		if name == ".." {
			// Re-open from the root: the parent of a directory is what the path
			// says, and the descriptor's ".." could have been moved.
			if len(done) > 0 {
				done = done[:len(done)-1]
			}
			next, err := c.reopen(done)
			if err != nil {
				return p, nil
			}
			unix.Close(cur)
			cur = next
			continue
		}
		here := "/" + strings.Join(append(slices.Clone(done), name), "/")
		child, err := unix.Openat(cur, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			if len(c.tree.Nodes) < maxTreeNodes {
				n := &Node{Kind: NodeMissing}
				if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
					n = &Node{Kind: NodeOther, Err: err.Error()}
				}
				c.tree.Nodes[here] = n
			}
			return here, nil
		}
		n := c.tree.Nodes[here]
		if n == nil || n.Kind == NodeMissing {
			if len(c.tree.Nodes) >= maxTreeNodes {
				unix.Close(child)
				return here, nil
			}
			n = describe(child)
			c.tree.Nodes[here] = n
		}
		switch n.Kind {
		case NodeLink:
			unix.Close(child)
			if links++; links > maxLinks || n.Err != "" {
				return here, nil
			}
			if strings.HasPrefix(n.Target, "/") {
				done = done[:0]
				next, err := c.reopen(done)
				if err != nil {
					return here, nil
				}
				unix.Close(cur)
				cur = next
			}
			todo = append(splitPath(n.Target), todo...)
		case NodeDir:
			done = append(done, name)
			unix.Close(cur)
			cur = child
		default:
			unix.Close(child)
			if len(todo) > 0 {
				return here, nil
			}
			return here, n
		}
	}
	final := "/" + strings.Join(done, "/")
	return final, c.tree.Nodes[final]
}

// reopen opens the directory at the given link-free components.
func (c *capturer) reopen(components []string) (int, error) {
	fd, err := unix.Dup(c.root)
	if err != nil {
		return -1, err
	}
	for _, name := range components {
		next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

// describe says what an O_PATH descriptor stands for.
func describe(fd int) *Node {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &Node{Kind: NodeOther, Err: err.Error()}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return &Node{Kind: NodeDir}
	case unix.S_IFREG:
		return &Node{Kind: NodeFile}
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, "", buf)
		if err != nil {
			return &Node{Kind: NodeLink, Err: err.Error()}
		}
		return &Node{Kind: NodeLink, Target: string(buf[:n])}
	case unix.S_IFCHR:
		// 1:3 is /dev/null (Documentation/admin-guide/devices.txt).
		return &Node{Kind: NodeOther, Null: unix.Major(st.Rdev) == 1 && unix.Minor(st.Rdev) == 3}
	}
	return &Node{Kind: NodeOther}
}

// list fills a directory node.
func (c *capturer) list(resolved string, n *Node) {
	f, err := c.open(resolved, unix.O_DIRECTORY)
	if err != nil {
		n.Err = err.Error()
		return
	}
	defer f.Close()
	for len(n.Entries) <= maxDirEntries {
		names, err := f.Readdirnames(256)
		n.Entries = append(n.Entries, names...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			n.Err = err.Error()
			break
		}
	}
	slices.Sort(n.Entries)
	if len(n.Entries) > maxDirEntries {
		n.Entries, n.Cut = n.Entries[:maxDirEntries], true
	}
	n.Listed = true
}

// content fills a file node.
func (c *capturer) content(resolved string, n *Node) {
	f, err := c.open(resolved, 0)
	if err != nil {
		n.Err = err.Error()
		return
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		n.Err = err.Error()
		return
	} else if !st.Mode().IsRegular() {
		n.Err = "changed while it was read"
		return
	}
	limit := min(maxFileBytes, maxTreeBytes-c.bytes)
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		n.Err = err.Error()
	}
	if len(data) > limit {
		data, n.Cut = data[:limit], true
	}
	if data == nil {
		data = []byte{}
	}
	n.Data = data
	c.bytes += len(data)
}

// open opens a link-free path for reading, without blocking on anything.
func (c *capturer) open(resolved string, flags int) (*os.File, error) {
	components := splitPath(resolved)
	if len(components) == 0 {
		fd, err := unix.Openat(c.root, ".", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), resolved), nil
	}
	dir, err := c.reopen(components[:len(components)-1])
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, components[len(components)-1],
		unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), resolved), nil
}
