package remedy

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// History lists the transactions, latest first: the one at work too, if there is
// one. Entries that cannot be read are named by the error, the others are
// returned all the same. It writes nothing and takes no lock.
func (s *System) History() ([]*Journal, error) {
	state, err := openDir(s.root(), s.State, false, 0, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer state.close()
	var out []*Journal
	var errs []error
	if j, err := readJournal(state, journalName); err != nil {
		errs = append(errs, err)
	} else if j != nil {
		out = append(out, j)
	}
	history, err := openDir(s.root(), s.State+"/"+historyName, false, 0, false)
	if errors.Is(err, fs.ErrNotExist) {
		return out, errors.Join(errs...)
	}
	if err != nil {
		return out, errors.Join(append(errs, err)...)
	}
	defer history.close()
	names, err := history.names()
	errs = append(errs, err)
	for _, name := range names {
		j, err := readJournal(history, name)
		if err != nil {
			errs = append(errs, err)
		} else if j != nil {
			out = append(out, j)
		}
	}
	slices.SortStableFunc(out, func(a, b *Journal) int {
		return cmp.Or(cmp.Compare(b.Seq, a.Seq), b.Started.Compare(a.Started), strings.Compare(a.ID, b.ID))
	})
	return out, errors.Join(errs...)
}

// names are the entries of the history.
func (d *dir) names() ([]string, error) {
	all, err := d.list()
	return slices.DeleteFunc(all, func(n string) bool {
		id, ok := strings.CutSuffix(n, ".json")
		return !ok || !isID(id)
	}), err
}

// list are all names in a directory, sorted.
func (d *dir) list() ([]string, error) {
	fd, err := unix.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: d.name, Err: err}
	}
	f := os.NewFile(uintptr(fd), d.name)
	defer func() { _ = f.Close() }() // only read
	all, err := f.Readdirnames(100_000)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, &fs.PathError{Op: "list", Path: d.name, Err: err}
	}
	slices.Sort(all)
	return all, nil
}

// aged are the entries of the history, latest first; one that cannot be read is older
// than all others.
func (st *store) aged() (names []string, latest int) {
	names, err := st.history.names()
	if err != nil {
		return nil, 0
	}
	type age struct {
		seq int
		at  int64
	}
	ages := map[string]age{}
	for _, n := range names {
		var a age
		var s unix.Stat_t
		if unix.Fstatat(st.history.fd, n, &s, unix.AT_SYMLINK_NOFOLLOW) == nil {
			a.at = s.Mtim.Nano()
		}
		if j, err := readJournal(st.history, n); err == nil && j != nil {
			a.seq = j.Seq
		}
		ages[n] = a
		latest = max(latest, a.seq)
	}
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(ages[b].seq, ages[a].seq), cmp.Compare(ages[b].at, ages[a].at))
	})
	return names, latest
}

// next is the number of the next change.
func (st *store) next() int {
	_, latest := st.aged()
	return latest + 1
}

// prune keeps the history short. Failing at it is nobody's trouble.
func (st *store) prune() {
	if all, err := st.history.names(); err != nil || len(all) <= keepHistory {
		return
	}
	names, _ := st.aged()
	for _, n := range names[min(keepHistory, len(names)):] {
		_ = st.history.unlink(n)
	}
}

// entry reads one transaction of the history; id "" means the last that was kept.
func (s *System) entry(st *store, id string) (*Journal, error) {
	if id != "" {
		if !isID(id) {
			return nil, fmt.Errorf("%q is not the id of a change", id)
		}
		j, err := readJournal(st.history, id+".json")
		if err == nil && j == nil {
			err = fmt.Errorf("no change %s in the history", id)
		}
		return j, err
	}
	all, err := s.History()
	for _, j := range all {
		if j.State == Committed {
			return j, nil
		}
	}
	return nil, err
}
