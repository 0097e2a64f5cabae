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
	c := &capturer{ctx: ctx, root: fd, tree: &Tree{Nodes: map[string]*Node{"/": {Kind: NodeDir}}}, dirs: map[string]int{}}
	defer c.closeDirs()
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
	dirs  map[string]int // descriptors of directories, by path without links
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
// final node, or nil where the path ends in nothing. What was recorded before is
// not looked at again: all paths are those of one moment.
func (c *capturer) walk(p string) (string, *Node) {
	c.spare()
	todo := splitPath(p)
	here := "" // the directory we are in, without links; "" is the root
	links := 0
	for len(todo) > 0 {
		if c.ctx.Err() != nil {
			return p, nil
		}
		name := todo[0]
		todo = todo[1:]
		if name == ".." {
			here = here[:max(0, strings.LastIndexByte(here, '/'))]
			continue
		}
		child := here + "/" + name
		n := c.tree.Nodes[child]
		if n == nil {
			if len(c.tree.Nodes) >= maxTreeNodes {
				return child, nil
			}
			n = c.look(here, name)
			c.tree.Nodes[child] = n
		}
		switch n.Kind {
		case NodeMissing:
			return child, nil
		case NodeLink:
			if links++; links > maxLinks || n.Err != "" {
				return child, nil
			}
			if strings.HasPrefix(n.Target, "/") {
				here = ""
			}
			todo = append(splitPath(n.Target), todo...)
		case NodeDir:
			here = child
		default:
			if len(todo) > 0 || n.unopened() {
				return child, nil
			}
			return child, n
		}
	}
	if here == "" {
		here = "/"
	}
	return here, c.tree.Nodes[here]
}

// unopened tells a node that is there, or may be, and could not be opened.
func (n *Node) unopened() bool { return n.Kind == NodeOther && n.Err != "" }

// look opens a name of a directory to say what stands there.
func (c *capturer) look(dir, name string) *Node {
	fd, err := c.directory(dir)
	if err == nil {
		fd, err = unix.Openat(fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		return &Node{Kind: NodeMissing}
	case err != nil:
		return &Node{Kind: NodeOther, Err: err.Error()}
	}
	n := describe(fd)
	if n.Kind == NodeDir {
		c.dirs[dir+"/"+name] = fd // the next name is often one in it
		return n
	}
	unix.Close(fd)
	if n.Kind == NodeLink && (dir == "/proc" || strings.HasPrefix(dir, "/proc/")) {
		n.Err = "leads through /proc, where it is another for each process"
	}
	return n
}

// directory gives the descriptor of a directory without links on its way, ""
// for the root. It stays open until spare closes it.
func (c *capturer) directory(p string) (int, error) {
	if p == "" {
		return c.root, nil
	}
	if fd, ok := c.dirs[p]; ok {
		return fd, nil
	}
	at := strings.LastIndexByte(p, '/')
	parent, err := c.directory(p[:at])
	if err != nil {
		return -1, err
	}
	fd, err := unix.Openat(parent, p[at+1:], unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		c.dirs[p] = fd
	}
	return fd, err
}

// maxOpenDirs bounds the descriptors that are kept from one path to the next.
const maxOpenDirs = 100

// spare closes the kept descriptors where they have become many.
func (c *capturer) spare() {
	if len(c.dirs) > maxOpenDirs {
		c.closeDirs()
	}
}

func (c *capturer) closeDirs() {
	for _, fd := range c.dirs {
		unix.Close(fd)
	}
	clear(c.dirs)
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
	fd, err := c.open(resolved, unix.O_DIRECTORY)
	if err != nil {
		n.Err = err.Error()
		return
	}
	defer unix.Close(fd)
	buf := make([]byte, 16<<10)
	for len(n.Entries) <= maxDirEntries {
		got, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			n.Err = err.Error()
			break
		}
		if got <= 0 {
			break
		}
		_, _, n.Entries = unix.ParseDirent(buf[:got], -1, n.Entries)
	}
	slices.Sort(n.Entries)
	if len(n.Entries) > maxDirEntries {
		n.Entries, n.Cut = n.Entries[:maxDirEntries], true
	}
	n.Listed = true
}

// content fills a file node.
func (c *capturer) content(resolved string, n *Node) {
	fd, err := c.open(resolved, 0)
	if err != nil {
		n.Err = err.Error()
		return
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		n.Err = err.Error()
		return
	} else if st.Mode&unix.S_IFMT != unix.S_IFREG {
		n.Err = "changed while it was read"
		return
	}
	limit := min(maxFileBytes, maxTreeBytes-c.bytes)
	// One byte more than it has shows its end, one more than allowed that it is cut.
	data := make([]byte, 0, min(max(int(st.Size), 0), limit)+1)
	for len(data) <= limit {
		if len(data) == cap(data) { // it grew
			data = slices.Grow(data, 4096)
		}
		got, err := unix.Read(fd, data[len(data):min(cap(data), limit+1)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			n.Err = err.Error()
			break
		}
		if got <= 0 {
			break
		}
		data = data[:len(data)+got]
	}
	if len(data) > limit {
		data, n.Cut = data[:limit], true
	}
	n.Data = data
	c.bytes += len(data)
}

// open opens a link-free path for reading, without blocking on anything.
func (c *capturer) open(resolved string, flags int) (int, error) {
	if resolved == "/" {
		return unix.Openat(c.root, ".", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
	}
	at := strings.LastIndexByte(resolved, '/')
	dir, err := c.directory(resolved[:at])
	if err != nil {
		return -1, err
	}
	return unix.Openat(dir, resolved[at+1:], unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC|flags, 0)
}
