package collect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hostaudit/hostaudit/listeners"
)

// groupMount is where a controller of control groups is mounted, and the file
// of each group that counts what its limit refused.
type groupMount struct {
	dir, file string
	// word and counter: the line "word N" of the file is counted under counter.
	word, counter string
}

// cgroupMounts gives the places of version 2 (Documentation/admin-guide/
// cgroup-v2.rst) or, where there is no unified hierarchy, of version 1.
func cgroupMounts() []groupMount {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cgroup.controllers"); err == nil {
		return []groupMount{{root, "pids.events", "max", "pids.max"}, {root, "memory.events", "oom_kill", "memory.oom_kill"}}
	}
	return []groupMount{{root + "/pids", "pids.events", "max", "pids.max"}, {root + "/memory", "memory.oom_control", "oom_kill", "memory.oom_kill"}}
}

// Bounds of the walk: services of systemd are at depth 2, pods of Kubernetes at
// 4; a host with more groups than this says so.
const (
	maxGroupDepth = 4
	maxGroups     = 4096
)

// readGroupEvents counts, for each control group below the mounts, how often its
// limit refused a process or killed one for memory: "pids.max:/system.slice/
// chat.service", and the sum of all under "pids.max". A mount that is not there
// is left out.
func readGroupEvents(mounts []groupMount) (listeners.Counters, error) {
	out := listeners.Counters{}
	var errs []error
	for _, m := range mounts {
		if err := m.read(out); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

func (m groupMount) read(out listeners.Counters) error {
	type group struct {
		path  string
		depth int
	}
	todo := []group{{"", 0}}
	var sum uint64
	for n := 0; len(todo) > 0; n++ {
		if n == maxGroups {
			return fmt.Errorf("more than %d control groups below %s", maxGroups, m.dir)
		}
		g := todo[0]
		todo = todo[1:]
		entries, err := os.ReadDir(filepath.Join(m.dir, g.path))
		if err != nil {
			if g.depth > 0 && errors.Is(err, fs.ErrNotExist) {
				continue // gone meanwhile
			}
			return err
		}
		for _, e := range entries {
			switch {
			case e.IsDir() && g.depth < maxGroupDepth:
				todo = append(todo, group{g.path + "/" + e.Name(), g.depth + 1})
			case e.Name() == m.file && g.depth > 0: // the root has no limit
				count, ok, err := eventCount(filepath.Join(m.dir, g.path, m.file), m.word)
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				if ok {
					out[m.counter+":"+g.path] = count
					sum += count
				}
			}
		}
	}
	out[m.counter] = sum
	return nil
}

// eventCount reads the line "word N".
func eventCount(name, word string) (uint64, bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return 0, false, err
	}
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) == 2 && f[0] == word {
			n, err := strconv.ParseUint(f[1], 10, 64)
			if err != nil {
				return 0, false, fmt.Errorf("parse %s: %w", name, err)
			}
			return n, true, nil
		}
	}
	return 0, false, nil
}
