package listeners

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Sample is one reading of the queue and limit counters of a namespace. Two of
// them are evidence, one is not.
type Sample struct {
	NetNS uint64 `json:"netns"`
	// Uptime is when it was taken, after boot: a clock that never jumps.
	Uptime    time.Duration `json:"uptime"`
	Counters  Counters      `json:"counters"`
	SockStat  SockStat      `json:"sockstat"`
	SoftNet   []SoftNet     `json:"softnet,omitempty"`
	Conntrack *Conntrack    `json:"conntrack,omitempty"` // nil where the module is not loaded
	Gaps      []Gap         `json:"gaps,omitempty"`
}

// Change is what happened between two samples of one namespace. A counter that
// is absent is not known.
type Change struct {
	Over      time.Duration `json:"over"`
	Counters  Counters      `json:"counters"`
	SoftNet   []SoftNet     `json:"softnet,omitempty"`
	Conntrack Counters      `json:"conntrack,omitempty"`
}

// ErrOtherNamespace says that two samples do not compare.
var ErrOtherNamespace = errors.New("the samples are of different network namespaces")

// Sub gives the change since an earlier sample.
func (s *Sample) Sub(earlier *Sample) (*Change, error) {
	switch {
	case s.NetNS != earlier.NetNS:
		return nil, ErrOtherNamespace
	case s.Uptime < earlier.Uptime:
		return nil, errors.New("the samples are of different boots, or in the wrong order")
	}
	c := &Change{Over: s.Uptime - earlier.Uptime, Counters: s.Counters.Sub(earlier.Counters), SoftNet: subSoftNet(s.SoftNet, earlier.SoftNet)}
	if s.Conntrack != nil && earlier.Conntrack != nil {
		c.Conntrack = s.Conntrack.Counters.Sub(earlier.Conntrack.Counters)
	}
	return c, nil
}

// ReadSample reads the counters of the calling thread's network namespace. proc
// is where procfs is mounted, "" means /proc.
func ReadSample(ctx context.Context, proc string) (*Sample, error) {
	return readSample(ctx, proc, false)
}

// ReadTables reads of a sample only how full tables are: SockStat and Conntrack.
func ReadTables(ctx context.Context, proc string) (*Sample, error) {
	return readSample(ctx, proc, true)
}

func readSample(ctx context.Context, proc string, tables bool) (*Sample, error) {
	if proc == "" {
		proc = "/proc"
	}
	s := &Sample{Counters: Counters{}}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return nil, fmt.Errorf("read the clock: %w", err)
	}
	s.Uptime = time.Duration(ts.Nano())
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(proc, "thread-self/ns/net"), &st); err != nil {
		return nil, fmt.Errorf("identify the network namespace: %w", err)
	}
	s.NetNS = st.Ino

	// Optional files come with IPv6 and with the module for connection tracking.
	for _, f := range []struct {
		name            string
		optional, table bool
		parse           func([]byte) error
	}{
		{"netstat", false, false, func(b []byte) error { return ParseCounters(b, s.Counters) }},
		{"snmp", false, false, func(b []byte) error { return ParseCounters(b, s.Counters) }},
		{"snmp6", true, false, func(b []byte) error { return ParseCounters6(b, s.Counters) }},
		{"sockstat", false, true, func(b []byte) error { return ParseSockStat(b, &s.SockStat) }},
		{"sockstat6", true, true, func(b []byte) error { return ParseSockStat(b, &s.SockStat) }},
		{"softnet_stat", false, false, func(b []byte) (err error) { s.SoftNet, err = ParseSoftNet(b); return err }},
		{"stat/nf_conntrack", true, true, s.conntrack(proc)},
	} {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read counters: %w", err)
		}
		if tables && !f.table {
			continue
		}
		b, err := readSmall(filepath.Join(proc, "thread-self/net", f.name))
		if errors.Is(err, fs.ErrNotExist) && f.optional {
			continue
		}
		if err == nil {
			err = f.parse(b)
		}
		if err != nil {
			s.Gaps = append(s.Gaps, Gap{What: "counters: " + f.name, Why: err.Error()})
		}
	}
	return s, nil
}

func (s *Sample) conntrack(proc string) func([]byte) error {
	return func(b []byte) error {
		counters, err := ParseConntrackStat(b)
		if err != nil {
			return err
		}
		c := &Conntrack{Counters: counters}
		for key, to := range map[string]*uint64{"nf_conntrack_count": &c.Count, "nf_conntrack_max": &c.Max, "nf_conntrack_buckets": &c.Buckets} {
			b, err := readSmall(filepath.Join(proc, "sys/net/netfilter", key))
			if err != nil {
				return err
			}
			if *to, err = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err != nil {
				return fmt.Errorf("parse %s: %w", key, err)
			}
		}
		s.Conntrack = c
		return nil
	}
}

const maxCounters = 4 << 20 // a line of softnet_stat a processor, and thousands of them

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCounters+1))
	if err == nil && len(b) > maxCounters {
		err = fmt.Errorf("read %s: longer than %d bytes", path, maxCounters)
	}
	return b, err
}
