package listeners

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Namespace is one network namespace of the machine, found by a process in it
// or by a mount that keeps it.
type Namespace struct {
	Inode uint64 `json:"inode"` // its identity while the machine runs
	// Name is what the operator calls it: the name of a mount (`ip netns add
	// NAME`), a container ("docker web"), "host", or "pid 123"; "" for the one we run in.
	Name HostText `json:"name"`
	// Own is the namespace of the caller, First the machine's first one (that of
	// process 1; never set where a pid namespace hides that process).
	Own   bool `json:"own,omitempty"`
	First bool `json:"first,omitempty"`
	// Processes counts those seen in it, PID is the lowest; 0 where only a mount
	// keeps it.
	Processes int        `json:"processes"`
	PID       int        `json:"pid,omitempty"`
	Path      HostText   `json:"path,omitempty"` // of the mount
	Container *Container `json:"container,omitempty"`
}

// Namespaces is the list of network namespaces and what could not be seen.
type Namespaces struct {
	List []Namespace `json:"list"` // the caller's own first, then by inode
	Gaps []Gap       `json:"gaps,omitempty"`
}

// ReadNamespaces enumerates the network namespaces by the processes in them and
// by the mounts of them (/run/netns, /run/docker/netns, …). proc is where procfs
// is mounted, "" means /proc. The iterators are used where they are to be had; nil
// does without.
func ReadNamespaces(ctx context.Context, proc string, it *Iterators) (*Namespaces, error) {
	if proc == "" {
		proc = "/proc"
	}
	dir, err := unix.Open(proc, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", proc, err)
	}
	defer unix.Close(dir)
	var r procReader
	own, err := r.namespace(dir, "thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	found := map[uint64]*Namespace{own: {Inode: own, Own: true}}
	at := func(inode uint64) *Namespace {
		n := found[inode]
		if n == nil {
			n = &Namespace{Inode: inode}
			found[inode] = n
		}
		return n
	}

	out := &Namespaces{}
	machine := inInitialPIDNamespace(dir) // else process 1 is a container's
	in := func(pid int, inode uint64) {
		n := at(inode)
		if n.Processes == 0 || pid < n.PID {
			n.PID = pid
		}
		n.Processes++
		n.First = n.First || pid == 1 && machine
	}
	if !machine {
		it = nil
	}
	if it == nil || it.namespaces(in) != nil {
		denied, all, err := namespacesOfProcesses(ctx, dir, in)
		if err != nil {
			return nil, err
		}
		if denied > 0 {
			out.Gaps = append(out.Gaps, Gap{What: fmt.Sprintf("network namespaces: %d of %d processes", denied, all), Why: "may not be looked into without more privilege"})
		}
	}

	if machine && hidesProcesses(dir) {
		out.Gaps = append(out.Gaps, Gap{What: "network namespaces: processes of other users", Why: hiddenWhy})
	}

	mounts, err := r.read(dir, "thread-self/mountinfo", 16<<20, whole)
	if err != nil {
		out.Gaps = append(out.Gaps, Gap{What: "network namespaces kept by mounts", Why: err.Error()})
	}
	for _, m := range namespaceMounts(mounts) {
		n := at(m.inode)
		// The operator's own name counts more than a runtime's.
		if n.Path == "" || strings.HasPrefix(m.path, "/run/netns/") && !strings.HasPrefix(string(n.Path), "/run/netns/") {
			n.Path = HostText(m.path)
		}
	}

	containers := newContainerNames("")
	for _, n := range found {
		n.name(&r, dir, containers)
		out.List = append(out.List, *n)
	}
	slices.SortFunc(out.List, func(a, b Namespace) int {
		switch {
		case a.Own != b.Own && a.Own:
			return -1
		case a.Own != b.Own:
			return 1
		case a.Inode < b.Inode:
			return -1
		}
		return 1
	})
	return out, nil
}

// namespacesOfProcesses reads the link of every process.
func namespacesOfProcesses(ctx context.Context, proc int, in func(pid int, inode uint64)) (denied, all int, err error) {
	pids, err := listPIDs(proc)
	if err != nil {
		return 0, 0, fmt.Errorf("list processes: %w", err)
	}
	var r procReader
	for i, pid := range pids {
		if i%256 == 0 && ctx.Err() != nil {
			return denied, len(pids), fmt.Errorf("list network namespaces: %w", ctx.Err())
		}
		inode, err := r.namespace(proc, strconv.Itoa(pid)+"/ns/net")
		switch {
		case err == nil:
			in(pid, inode)
		case gone(err):
		default:
			denied++
		}
	}
	return denied, len(pids), nil
}

// namespaces is the same by the iterator over tasks.
func (it *Iterators) namespaces(in func(pid int, inode uint64)) error {
	seen, err := it.processes()
	if err != nil {
		return err
	}
	for _, t := range seen {
		if t.netNS != 0 {
			in(t.pid, uint64(t.netNS))
		}
	}
	return nil
}

func (n *Namespace) name(r *procReader, proc int, containers *containerNames) {
	if n.PID != 0 && !n.First {
		if b, err := r.read(proc, strconv.Itoa(n.PID)+"/cgroup", maxProcFile, single); err == nil {
			if p, err := parseCgroup(b); err == nil {
				n.Container = containerOf(p)
				containers.fill(n.Container)
			}
		}
	}
	switch {
	case n.Own:
	case n.Path != "" && n.Container == nil:
		n.Name = HostText(path.Base(string(n.Path)))
	case n.Container != nil && n.Container.Name != "":
		n.Name = HostText(n.Container.Runtime+" ") + n.Container.Name
	case n.Container != nil:
		n.Name = HostText(n.Container.Runtime + " " + short(string(n.Container.ID)))
	case n.First:
		n.Name = "host"
	default:
		n.Name = HostText(fmt.Sprintf("pid %d", n.PID))
	}
}

// short cuts a container id the way the runtimes print it.
func short(id string) string {
	if isID(id) {
		return id[:12]
	}
	return id
}

type namespaceMount struct {
	inode uint64
	path  string
}

// namespaceMounts finds mounts of network namespaces in /proc/PID/mountinfo
// (man 5 proc_pid_mountinfo): file system nsfs, root "net:[4026532281]".
func namespaceMounts(mountinfo []byte) []namespaceMount {
	var out []namespaceMount
	for line := range bytes.Lines(mountinfo) {
		f := strings.Fields(string(line))
		sep := slices.Index(f, "-")
		if sep < 6 || sep+1 >= len(f) || f[sep+1] != "nsfs" || !strings.HasPrefix(f[3], "net:[") {
			continue
		}
		inode, err := parseNamespaceLink(f[3])
		if err != nil {
			continue
		}
		out = append(out, namespaceMount{inode, unescapeMount(f[4])})
	}
	return out
}

// unescapeMount undoes the octal escapes of mountinfo (\040 is a space).
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Handle keeps a network namespace open; it cannot vanish or be another one's
// until Close.
type Handle struct {
	fd    int
	inode uint64
}

// ErrNamespaceGone says that the namespace no longer exists.
var ErrNamespaceGone = errors.New("the network namespace is gone")

// Open opens the namespace to enter it with [WithNamespace]. proc as for
// [ReadNamespaces].
func (n Namespace) Open(proc string) (*Handle, error) {
	if proc == "" {
		proc = "/proc"
	}
	var ways []string
	if n.Own {
		ways = append(ways, proc+"/thread-self/ns/net")
	}
	if n.PID != 0 {
		ways = append(ways, proc+"/"+strconv.Itoa(n.PID)+"/ns/net")
	}
	if n.Path != "" {
		ways = append(ways, string(n.Path))
	}
	err := ErrNamespaceGone
	for _, way := range ways {
		var fd int
		fd, openErr := unix.Open(way, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if openErr != nil {
			if !gone(openErr) {
				err = fmt.Errorf("open network namespace %d at %s: %w", n.Inode, way, openErr)
			}
			continue
		}
		// The pid or the path may belong to something else by now.
		var st unix.Stat_t
		if statErr := unix.Fstat(fd, &st); statErr == nil && st.Ino == n.Inode {
			return &Handle{fd, n.Inode}, nil
		}
		unix.Close(fd)
	}
	return nil, err
}

// Inode is the identity of the namespace.
func (h *Handle) Inode() uint64 { return h.inode }

// Close releases the namespace.
func (h *Handle) Close() error {
	if h.fd < 0 {
		return nil
	}
	err := unix.Close(h.fd)
	h.fd = -1
	return err
}

// WithNamespace runs fn on an operating system thread that has entered the
// namespace (setns(2), CAP_SYS_ADMIN in the user namespace that owns it). The
// thread is given up afterwards, so that no other goroutine ever runs in the
// wrong namespace. fn must open its sockets and files on its own goroutine.
func WithNamespace(h *Handle, fn func() error) error {
	done := make(chan error, 1)
	go onSpareThread(func() {
		if err := unix.Setns(h.fd, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace %d: %w", h.inode, err)
			return
		}
		finished := false
		defer func() {
			if !finished { // a panic ends the program anyway; Goexit must not hang the caller
				done <- errors.New("the work in the network namespace ended early")
			}
		}()
		err := fn()
		finished = true
		done <- err
	})
	return <-done
}

// onSpareThread runs fn locked to a thread that dies with it. The first thread
// of a process cannot die, and /proc/self/net would show its namespace: where
// the scheduler picks that one, it is held while another does the work.
func onSpareThread(fn func()) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		done := make(chan struct{})
		go func() {
			defer close(done)
			onSpareThread(fn)
		}()
		<-done
		return
	}
	fn() // no unlock: the runtime ends the thread with the goroutine
}
