package listeners

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Unowned says why a listener has no visible owner.
type Unowned string

// The reasons.
const (
	NotLookedUp Unowned = "not-looked-up" // owners were not asked for
	// NoPrivilege: some processes may not be looked into by this user, or not be seen.
	NoPrivilege Unowned = "no-privilege"
	// KernelSocket: every process of the machine was looked into and none holds
	// it: the kernel itself listens (NFS, WireGuard, iSCSI, …), or a descriptor
	// is on its way between two processes.
	KernelSocket Unowned = "kernel-socket"
	// OtherPIDNamespace: we live in a pid namespace and see only its processes.
	OtherPIDNamespace Unowned = "other-pid-namespace"
	// Gone: the socket was closed while the host was being read.
	Gone Unowned = "gone"
	// Unreadable: the search for owners failed.
	Unreadable Unowned = "unreadable"
)

// Owners says which processes hold which sockets: plain data, to be stored and
// joined with a [Table] later.
type Owners struct {
	Processes []Process `json:"processes"` // by pid
	// Holders gives, by inode, indexes into Processes.
	Holders map[uint32][]int `json:"holders"`
	Method  string           `json:"method"` // "proc" or "bpf"
	Looked  int              `json:"looked"` // processes looked into
	Denied  int              `json:"denied"` // processes that may not be looked into
	// Hidden: procfs does not show the processes of other users (hidepid).
	Hidden bool `json:"hidden,omitempty"`
	// Whole: processes of every pid namespace are visible.
	Whole bool `json:"whole"`
	// Partial: the search ended when each socket had an owner (FirstOnly); who came by
	// one later is not named.
	Partial bool  `json:"partial,omitempty"`
	Gaps    []Gap `json:"gaps,omitempty"`
}

// OwnerOptions steer [ReadOwners]. The zero value is the usual search.
type OwnerOptions struct {
	Proc string // where procfs is mounted, "" is /proc
	// Root is where /etc/passwd, systemd's units and the state of container runtimes
	// lie, "" is /.
	Root string
	// FirstOnly stops as soon as each socket has one owner, where procfs is read;
	// sockets shared by several processes then show only some of them.
	FirstOnly bool
	// Method: "" chooses, "proc" and "bpf" insist.
	Method string
	// Ahead has the open files of all processes looked through from the start, where
	// FirstOnly is set and the iterators are to be had: a long reading of sockets then
	// goes on beside it.
	Ahead bool
	// Iterators are the caller's, nil makes some.
	Iterators *Iterators
	// Workers is the number of goroutines, 0 means two.
	Workers int
}

// OwnerSearch looks for the owners of sockets. What does not depend on the sockets
// is made ready from the start, while they are still being read.
type OwnerSearch struct {
	opt   OwnerOptions
	proc  int
	whole bool
	pids  []int
	own   *Iterators // to be closed with the search
	ahead sighting
}

// ReadOwners finds the processes that hold the sockets with these inodes. A
// process that starts while it runs is looked into as well; one whose pid goes
// to another process is never confused with it.
func ReadOwners(ctx context.Context, inodes []uint32, opt OwnerOptions) (*Owners, error) {
	s, err := PrepareOwners(opt)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Find(ctx, inodes)
}

// PrepareOwners begins a search; its Close must be called.
func PrepareOwners(opt OwnerOptions) (*OwnerSearch, error) {
	if opt.Proc == "" {
		opt.Proc = "/proc"
	}
	if opt.Workers <= 0 {
		opt.Workers = 2
	}
	proc, err := unix.Open(opt.Proc, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", opt.Proc, err)
	}
	s := &OwnerSearch{opt: opt, proc: proc, whole: inInitialPIDNamespace(proc)}
	switch {
	case opt.Method == "proc" || !s.whole && opt.Method == "":
		s.own = noIterators(errors.New("not wanted"))
	case opt.Method == "bpf":
		s.own = prepareIterators()
	case opt.Iterators == nil:
		s.own = PrepareIterators()
	}
	if s.own != nil {
		s.opt.Iterators = s.own
	}
	if s.pids, err = s.opt.Iterators.pids(proc); err != nil {
		return nil, errors.Join(fmt.Errorf("list processes: %w", err), s.Close())
	}
	if opt.Ahead && opt.FirstOnly {
		s.lookAhead()
	}
	return s, nil
}

// Close gives back what was made ready.
func (s *OwnerSearch) Close() error {
	err := unix.Close(s.proc)
	if s.own != nil {
		err = errors.Join(err, s.own.Close())
	}
	return err
}

// Find does the search; it can be done once.
func (s *OwnerSearch) Find(ctx context.Context, inodes []uint32) (*Owners, error) {
	o := &Owners{Holders: map[uint32][]int{}, Method: "proc", Whole: s.whole, Hidden: s.whole && hidesProcesses(s.proc)}
	run := &search{OwnerSearch: s, want: make(map[uint32]struct{}, len(inodes)), found: map[uint32][]int{}, procs: map[processKey]Process{}, keyOf: map[int]processKey{}}
	for _, ino := range inodes {
		if ino != 0 {
			run.want[ino] = struct{}{}
		}
	}
	if len(run.want) > 0 {
		if err := run.run(ctx, o); err != nil {
			return nil, err
		}
	}
	o.Partial = s.opt.FirstOnly && (o.Method == "proc" || run.sighted)
	run.result(o)
	names, err := readPasswd(s.opt.Root)
	if err != nil {
		o.Gaps = append(o.Gaps, Gap{What: "user names", Why: err.Error()})
	}
	containers, units := newContainerNames(s.opt.Root), newUnitFileLimits(s.opt.Root)
	for i := range o.Processes {
		o.Processes[i].UnitFiles = units.of(o.Processes[i].Unit)
		o.Processes[i].User = HostText(names[o.Processes[i].UID])
		containers.fill(o.Processes[i].Container)
	}
	if o.Hidden {
		o.Gaps = append(o.Gaps, Gap{What: "owners: processes of other users", Why: hiddenWhy})
	}
	if o.Denied > 0 {
		o.Gaps = append(o.Gaps, Gap{What: fmt.Sprintf("owners: %d of %d processes", o.Denied, o.Looked+o.Denied), Why: "may not be looked into without more privilege"})
	}
	return o, nil
}

// Assign joins owners to listeners. Neighbours in the list that the same processes
// hold, as those of a server with many workers, share their owners.
func (o *Owners) Assign(ls []Listener) {
	var of []int
	var owners []Process
	for i := range ls {
		l := &ls[i]
		if l.Unowned == Gone {
			continue
		}
		if holders := o.Holders[l.Inode]; !slices.Equal(holders, of) {
			of, owners = holders, nil
			if len(holders) > 1 {
				owners = make([]Process, 0, len(holders))
			}
			for _, at := range holders {
				if at >= 0 && at < len(o.Processes) {
					owners = append(owners, o.Processes[at])
				}
			}
		}
		l.Owners = slices.Clip(owners)
		l.Unowned = ""
		if len(l.Owners) == 0 {
			l.Unowned = o.why()
		}
	}
}

// Refused tells that more privilege would show more owners.
func (o *Owners) Refused() bool { return o.Denied > 0 || o.Hidden }

func (o *Owners) why() Unowned {
	switch {
	case o.Refused():
		return NoPrivilege
	case !o.Whole:
		return OtherPIDNamespace
	default:
		return KernelSocket
	}
}

// MarkGone takes a second, later table of the same namespace and marks the
// listeners without owner that are not in it any more: closed meanwhile.
func (t *Table) MarkGone(later *Table) {
	alive := make(map[uint64]bool, len(later.Listeners))
	inodes := make(map[uint32]bool, len(later.Listeners))
	for _, l := range later.Listeners {
		alive[l.Cookie] = true
		inodes[l.Inode] = true
	}
	for i := range t.Listeners {
		l := &t.Listeners[i]
		if len(l.Owners) > 0 || l.Unowned == "" {
			continue
		}
		if l.Cookie != 0 && !alive[l.Cookie] || l.Cookie == 0 && !inodes[l.Inode] {
			l.Unowned = Gone
		}
	}
}

// initialPIDNS is PROC_PID_INIT_INO, the inode of the first pid namespace.
const initialPIDNS = 0xEFFFFFFC

func inInitialPIDNamespace(proc int) bool {
	var r procReader
	ino, err := r.namespace(proc, "thread-self/ns/pid")
	return err == nil && ino == initialPIDNS
}

const hiddenWhy = "not shown without more privilege (procfs is mounted with hidepid)"

// hidesProcesses tells whether a procfs of the first pid namespace hides processes
// that we may not trace (hidepid=invisible or ptraceable, proc(5)): process 1, which
// is always there, is one of them.
func hidesProcesses(proc int) bool {
	var st unix.Stat_t
	return unix.Fstatat(proc, "1", &st, 0) == unix.ENOENT
}

type processKey struct {
	pid   int
	start uint64
}

// search is one run of Find.
type search struct {
	*OwnerSearch
	want  map[uint32]struct{}
	found map[uint32][]int // pids by inode
	procs map[processKey]Process
	keyOf map[int]processKey // the last process seen under a pid

	looked, denied int
	sighted        bool // what was seen ahead was enough
}

// maxRounds bounds the looking for processes that started meanwhile.
const maxRounds = 4

func (s *search) run(ctx context.Context, o *Owners) error {
	if s.opt.Method != "proc" {
		err := s.runBPF(ctx)
		if err == nil {
			o.Method = "bpf"
			return nil
		}
		if s.opt.Method == "bpf" || ctx.Err() != nil {
			return fmt.Errorf("iterate files by bpf: %w", err)
		}
	}
	// Processes that started since the search was prepared are looked into by the
	// round after this one.
	return s.runProc(ctx, s.pids, nil)
}

// runProc looks through the descriptors of the processes, then of those that
// appeared meanwhile (a child inherits what its parent may close). Those in done
// have been looked into already.
func (s *search) runProc(ctx context.Context, pids, done []int) error {
	done = slices.Clone(done)
	if s.opt.FirstOnly {
		pids = s.busyFirst(pids)
	}
	for range maxRounds {
		if err := s.scan(ctx, pids); err != nil {
			return err
		}
		if s.opt.FirstOnly && len(s.found) == len(s.want) {
			return nil
		}
		done = append(done, pids...)
		now, err := s.opt.Iterators.pids(s.proc)
		if err != nil {
			return fmt.Errorf("list processes: %w", err)
		}
		if pids = without(now, done); len(pids) == 0 {
			return nil
		}
	}
	return nil
}

// busyFirst puts the processes with many open descriptors first: those that hold
// many sockets are found soon, and then the search ends. The size of /proc/PID/fd
// is their number since Linux 6.2, 0 before, which leaves the order as it is.
func (s *search) busyFirst(pids []int) []int {
	type counted struct {
		pid  int
		open int64
	}
	all := make([]counted, len(pids))
	for i, pid := range pids {
		var st unix.Stat_t
		all[i].pid = pid
		if unix.Fstatat(s.proc, strconv.Itoa(pid)+"/fd", &st, 0) == nil {
			all[i].open = st.Size
		}
	}
	slices.SortStableFunc(all, func(a, b counted) int { return cmp.Compare(b.open, a.open) })
	out := make([]int, len(all))
	for i, c := range all {
		out[i] = c.pid
	}
	return out
}

// without gives the pids that are not in seen.
func without(pids, seen []int) []int {
	known := make(map[int]struct{}, len(seen))
	for _, pid := range seen {
		known[pid] = struct{}{}
	}
	return slices.DeleteFunc(pids, func(pid int) bool { _, ok := known[pid]; return ok })
}

func (s *search) result(o *Owners) {
	o.Looked, o.Denied = s.looked, s.denied
	keys := make([]processKey, 0, len(s.procs))
	for k := range s.procs {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b processKey) int { return a.pid - b.pid })
	index := map[int]int{}
	for i, k := range keys {
		o.Processes = append(o.Processes, s.procs[k])
		index[k.pid] = i
	}
	for ino, holders := range s.found {
		slices.Sort(holders)
		for _, pid := range slices.Compact(holders) {
			if at, ok := index[pid]; ok {
				o.Holders[ino] = append(o.Holders[ino], at)
			}
		}
	}
}

// holding is a process with the wanted sockets it holds.
type holding struct {
	process Process
	inodes  []uint32
}

func (s *search) keep(h holding) {
	key := processKey{h.process.PID, h.process.Start}
	if old, ok := s.keyOf[key.pid]; ok && old != key {
		// The pid went to another process between two rounds: the later one stays,
		// what the earlier one held it holds no more.
		delete(s.procs, old)
		for ino, pids := range s.found {
			s.found[ino] = slices.DeleteFunc(pids, func(pid int) bool { return pid == key.pid })
			if len(s.found[ino]) == 0 {
				delete(s.found, ino)
			}
		}
	}
	s.keyOf[key.pid] = key
	s.procs[key] = h.process
	for _, ino := range h.inodes {
		s.found[ino] = append(s.found[ino], key.pid)
	}
}

func gone(err error) bool {
	return errors.Is(err, errVanished) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT)
}
