package sysctl

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Presence says what became of reading one key.
type Presence string

// The states of a Value.
const (
	Present Presence = "present" // Text is what the kernel answered
	Absent  Presence = "absent"  // no such key: removed, not compiled, module not loaded, or not in this namespace
	Failed  Presence = "failed"  // it is there and could not be read; Err says why
)

// Value is a key's live value.
type Value struct {
	State Presence `json:"state"`
	Text  string   `json:"text,omitempty"` // without the final newline, otherwise as read
	Err   string   `json:"err,omitempty"`
}

// Values holds live values. A key that is not in the map was not asked for.
type Values map[Key]Value

// Get returns a value's text; ok is false when it is absent, failed or was not read.
func (v Values) Get(k Key) (text string, ok bool) {
	x := v[k]
	return x.Text, x.State == Present
}

// Int returns the first integer of a value.
func (v Values) Int(k Key) (int64, bool) {
	n := v.Ints(k)
	if len(n) == 0 {
		return 0, false
	}
	return n[0], true
}

// Ints returns the integers of a value, nil when it has none.
func (v Values) Ints(k Key) []int64 {
	text, ok := v.Get(k)
	if !ok {
		return nil
	}
	n, err := parseInts(text, 16)
	if err != nil {
		return nil
	}
	return n
}

// Gaps lists the keys that are there and could not be read.
func (v Values) Gaps() []Gap {
	var out []Gap
	for k, x := range v {
		if x.State == Failed {
			out = append(out, Gap{What: "read " + string(k), Why: x.Err})
		}
	}
	slices.SortFunc(out, func(a, b Gap) int { return strings.Compare(a.What, b.What) })
	return out
}

// ProcSys is where the kernel shows its settings. Below net they are those of
// the network namespace of the thread that opens them (net/sysctl_net.c,
// net_ctl_root_lookup asks current), so a caller that has entered another
// namespace stays on its thread.
const ProcSys = "/proc/sys"

// maxValueBytes bounds one value; the longest known one, every other port in
// ip_local_reserved_ports, has 190,000.
const maxValueBytes = 256 << 10

// ReadValues reads keys below dir (ProcSys, or another root's) one by one:
// open, read, close on the calling thread, never blocking. A missing key is
// Absent, any other failure is Failed with its reason. The error is the
// context's.
func ReadValues(ctx context.Context, dir string, keys []Key) (Values, error) {
	out := make(Values, len(keys))
	r := newValueReader(dir)
	defer r.close()
	for _, k := range keys {
		if err := ctx.Err(); err != nil {
			return out, fmt.Errorf("read live sysctls: %w", err)
		}
		text, err := r.read(k)
		switch {
		case err == nil:
			out[k] = Value{State: Present, Text: text}
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
			out[k] = Value{State: Absent}
		default:
			out[k] = Value{State: Failed, Err: err.Error()}
		}
	}
	return out, nil
}

// readValue reads one key.
func readValue(dir string, k Key) (string, error) {
	r := newValueReader(dir)
	defer r.close()
	return r.read(k)
}

// valueReader reads keys and keeps the directory of the last one open: most of a
// list lie in a few directories, and each step of a path through /proc/sys costs as
// much as the reading.
type valueReader struct {
	root, dir string
	fd        int // of dir, -1 for none
	buf       []byte
}

func newValueReader(root string) *valueReader {
	return &valueReader{root: root, fd: -1, buf: make([]byte, 4096)}
}

func (r *valueReader) close() {
	if r.fd >= 0 {
		unix.Close(r.fd)
	}
	r.fd = -1
}

// open opens the file of a key.
func (r *valueReader) open(path string) (int, error) {
	dir, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	if r.fd < 0 || r.dir != dir {
		r.close()
		fd, err := unix.Open(r.root+"/"+dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		r.fd, r.dir = fd, dir
	}
	return unix.Openat(r.fd, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
}

func (r *valueReader) read(k Key) (string, error) {
	p := k.Path()
	if k == "" || strings.Contains(p, "..") && slices.Contains(strings.Split(p, "/"), "..") {
		return "", fmt.Errorf("not a sysctl key: %q", string(k))
	}
	fd, err := r.open(p)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	n := 0
	for {
		got, err := unix.Pread(fd, r.buf[n:], int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return "", err
		}
		if n += max(got, 0); n == len(r.buf) {
			// What has no room the kernel cuts off, for good (proc_do_large_bitmap
			// gives nothing from an offset): it is read anew, with more room.
			if n > maxValueBytes {
				return "", errTooBig
			}
			r.buf, n = make([]byte, 4*n), 0
			continue
		}
		if got <= 0 || r.buf[n-1] == '\n' {
			break // with room to spare and its last newline a value is whole
		}
	}
	return strings.TrimSuffix(string(r.buf[:n]), "\n"), nil
}

// maxKeys bounds the listing of a kernel with very many interfaces.
const maxKeys = 200_000

// ListKeys lists the settings that exist below dir (ProcSys). Interfaces all
// have the same keys (devinet.c and addrconf.c register one template for each),
// so the keys of one are read and the others follow by name; that keeps a host
// with thousands of containers cheap. gaps names directories that could not be
// listed.
func ListKeys(ctx context.Context, dir string) (keys []Key, gaps []Gap, err error) {
	l := &keyLister{ctx: ctx, dir: dir}
	l.walk("")
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("list sysctls: %w", err)
	}
	if len(l.keys) >= maxKeys {
		l.gaps = append(l.gaps, Gap{What: "list sysctls", Why: "more than " + fmt.Sprint(maxKeys) + " keys; the rest was left out"})
	}
	slices.Sort(l.keys)
	return slices.Compact(l.keys), l.gaps, nil
}

type keyLister struct {
	ctx  context.Context
	dir  string
	keys []Key
	gaps []Gap
	buf  []byte
}

func (l *keyLister) walk(rel string) {
	if l.ctx.Err() != nil || len(l.keys) >= maxKeys {
		return
	}
	entries, err := l.read(rel)
	if err != nil {
		l.gaps = append(l.gaps, Gap{What: "list " + l.dir + "/" + rel, Why: err.Error()})
		return
	}
	interfaces := perInterface(rel)
	var template []string
	for _, e := range entries {
		p := strings.TrimPrefix(rel+"/"+e.name, "/")
		if !e.dir {
			l.add(p)
			continue
		}
		// "all" and "default" have keys of their own; the rest share one list.
		if !interfaces || e.name == "all" || e.name == "default" {
			l.walk(p)
			continue
		}
		if template == nil {
			names, err := l.read(p)
			if err != nil {
				continue // the interface went away meanwhile
			}
			for _, n := range names {
				template = append(template, n.name)
			}
		}
		for _, n := range template {
			l.add(p + "/" + n)
		}
	}
}

// perInterface tells whether the directories in this one are those of interfaces.
func perInterface(rel string) bool {
	switch rel {
	case "net/ipv4/conf", "net/ipv6/conf", "net/ipv4/neigh", "net/ipv6/neigh":
		return true
	}
	return false
}

func (l *keyLister) add(p string) {
	if len(l.keys) < maxKeys {
		l.keys = append(l.keys, KeyFromPath(p))
	}
}

// dirent is a name in a directory.
type dirent struct {
	name string
	dir  bool
}

func (l *keyLister) read(rel string) ([]dirent, error) {
	fd, err := unix.Open(l.dir+"/"+rel, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if l.buf == nil {
		l.buf = make([]byte, 16<<10)
	}
	var out []dirent
	for len(out) < maxKeys {
		n, err := unix.ReadDirent(fd, l.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return out, err
		}
		if n <= 0 {
			break
		}
		out = appendEntries(out, fd, l.buf[:n])
	}
	return out, nil
}

// appendEntries decodes what getdents64(2) gave.
func appendEntries(out []dirent, fd int, b []byte) []dirent {
	const head = 19 // struct linux_dirent64 up to d_name
	for len(b) > head {
		size := int(binary.NativeEndian.Uint16(b[16:]))
		if size < head || size > len(b) {
			break
		}
		kind, name := b[18], b[head:size]
		b = b[size:]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		e := dirent{name: string(name), dir: kind == unix.DT_DIR}
		if e.name == "." || e.name == ".." {
			continue
		}
		if kind == unix.DT_UNKNOWN {
			var st unix.Stat_t
			e.dir = unix.Fstatat(fd, e.name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
		}
		out = append(out, e)
	}
	return out
}

// WantedKeys says which of the existing keys a report needs: those of the
// catalogue, with their interfaces, and those that any file sets. Of a set that
// still asks they are also those that an interface may lack.
func WantedKeys(keys *KeySet, outcomes ...*Outcome) []Key {
	var out []Key
	if keys.ask != nil {
		out = keys.interfaceKeys()
	}
	for _, k := range keys.sorted {
		if _, ok := Find(k); ok {
			out = append(out, k)
		}
	}
	for _, o := range outcomes {
		out = append(out, o.Keys()...)
	}
	// Keys of the catalogue that do not exist are asked for too: that they are
	// absent is an answer.
	for _, e := range Catalogue() {
		if e.Setting() && !strings.Contains(string(e.Key), "*") {
			out = append(out, e.Key)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
