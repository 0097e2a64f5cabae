package xtables

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// recentLists is where the lists of the recent match stand, of the calling thread's
// network namespace.
const recentLists = "/proc/thread-self/net/xt_recent"

// maxRecentLists bounds the lists that are looked at.
const maxRecentLists = 1 << 10

// RecentEmpty names the lists of the recent match that hold nobody, a name and a
// line feed each (net/netfilter/xt_recent.c, recent_seq_show: a line for each
// address). A kernel without the match has none.
func RecentEmpty() ([]byte, error) {
	dir, err := os.Open(recentLists)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("x_tables: list the lists of recent: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxRecentLists)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("x_tables: list the lists of recent: %w", err)
	}
	var out bytes.Buffer
	for _, n := range names {
		f, err := os.Open(recentLists + "/" + n)
		if err != nil {
			continue // it went away, or is not for us: not known to be empty
		}
		read, err := f.Read(make([]byte, 1))
		f.Close()
		if read == 0 && errors.Is(err, io.EOF) {
			fmt.Fprintln(&out, n)
		}
	}
	return out.Bytes(), nil
}

// Recents are the names of the lists that are known to be empty, of what
// RecentEmpty gave.
func Recents(names []byte) func(name string) bool {
	empty := map[string]bool{}
	for _, n := range bytes.Split(names, []byte("\n")) {
		if len(n) > 0 {
			empty[string(n)] = true
		}
	}
	return func(name string) bool { return empty[name] }
}
