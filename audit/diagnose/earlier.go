package diagnose

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"sync"
	"time"
)

// Earlier is who held the port in a report that scan kept on this host. All
// texts are host text.
type Earlier struct {
	At                   time.Time
	Listener, Name, Unit string
	PID                  int
}

// Where the daily scan keeps its reports, and how large one may be to be read.
const (
	reportsDir = "var/lib/hostaudit/reports"
	maxReport  = 32 << 20
)

var keptReport = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(\d{8}T\d{6})\.\d{9}Z\.json$`) })

// readEarlier looks for the port in the last reports, the newest first; nil
// where none has it.
func readEarlier(root string, port uint16) (*Earlier, error) {
	names, err := listWithin(root, reportsDir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !keptReport().MatchString(n) })
	slices.Sort(names)
	slices.Reverse(names)
	for _, n := range names[:min(len(names), 3)] {
		e, err := earlierIn(root, n, port)
		if e != nil || err != nil {
			return e, err
		}
	}
	return nil, nil
}

func earlierIn(root, name string, port uint16) (*Earlier, error) {
	b, err := readWithin(root, reportsDir+"/"+name, maxReport+1)
	if err != nil {
		return nil, err
	}
	if len(b) > maxReport {
		return nil, fmt.Errorf("read /%s/%s: larger than %d MiB", reportsDir, name, maxReport>>20)
	}
	var r struct {
		Listeners []struct {
			Proto, Address, Netns string
			Port                  uint16
			Process               *struct {
				PID        int
				Name, Unit string
			}
		}
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("read /%s/%s: %w", reportsDir, name, err)
	}
	for _, l := range r.Listeners {
		if l.Port != port || l.Netns != "" || l.Process == nil || l.Proto != "tcp" && l.Proto != "mptcp" {
			continue
		}
		at, err := time.Parse("20060102T150405", keptReport().FindStringSubmatch(name)[1])
		if err != nil {
			return nil, fmt.Errorf("read /%s/%s: %w", reportsDir, name, err)
		}
		return &Earlier{At: at, Listener: fmt.Sprintf("%s %s", l.Proto, hostPort(l.Address, port)), Name: l.Process.Name, Unit: l.Process.Unit, PID: l.Process.PID}, nil
	}
	return nil, nil
}

func hostPort(addr string, port uint16) string { return fmt.Sprintf("%s:%d", hostText(addr), port) }

// listWithin lists a directory below a root, sorted; links lead nowhere else.
func listWithin(root, name string) ([]string, error) {
	r, err := openRoot(root)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	d, err := r.Open(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	const most = 10_000
	names, err := d.Readdirnames(most)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("list /%s: %w", name, err)
	}
	slices.Sort(names)
	return names, nil
}
