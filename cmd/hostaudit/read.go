package main

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/cmd/hostaudit/config"
)

// read gives the snapshot to answer from: a saved one, or the host as it is.
func (a *app) read(c *common, s *config.Settings, o collect.Options) (*audit.Snapshot, error) {
	if c.snapshot != "" {
		f, err := openPlain(c.snapshot)
		if err != nil {
			return nil, usage(err)
		}
		defer f.Close()
		snap, err := collect.Load(f)
		if err != nil {
			return nil, usagef("%s: %w", c.snapshot, err)
		}
		return snap, nil
	}
	snap, err := collect.Host(a.ctx, a.options(s, o))
	if err != nil {
		return nil, fmt.Errorf("read the host: %w", err)
	}
	return snap, nil
}

func (a *app) options(s *config.Settings, o collect.Options) collect.Options {
	o.Root, o.Sample, o.Tool = s.Root, s.Sample, version()
	if s.Quick || s.Sample == 0 {
		o.Quick = true
	}
	return o
}

// openPlain opens a regular file, or a pipe as a shell makes it.
func openPlain(name string) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		f.Close()
		return nil, fmt.Errorf("open %s: is a directory", name)
	}
	return f, nil
}

// only the addresses that are valid.
func valid(addrs ...netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}
