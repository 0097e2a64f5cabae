package collect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// need is what a reading takes, for the sentence about why it failed: names of
// capabilities, all of which it needs.
type need []int

var (
	needNothing need
	needAdmin   = need{unix.CAP_NET_ADMIN}
	needSys     = need{unix.CAP_SYS_ADMIN}
	needBPF     = need{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN}
	needOwners  = need{unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH}
	needFiles   = need{unix.CAP_DAC_READ_SEARCH}
)

var capabilities = map[int]string{
	unix.CAP_NET_ADMIN: "CAP_NET_ADMIN", unix.CAP_SYS_ADMIN: "CAP_SYS_ADMIN", unix.CAP_SYS_PTRACE: "CAP_SYS_PTRACE", unix.CAP_DAC_READ_SEARCH: "CAP_DAC_READ_SEARCH",
}

func (n need) String() string {
	var names []string
	for _, c := range n {
		names = append(names, capabilities[c])
	}
	return strings.Join(names, " and ")
}

// reader is who read the host. Advice turns on it, in a replay as well.
type reader struct {
	UID  int    `json:"uid"`  // effective
	Caps uint64 `json:"caps"` // effective capabilities, bit by number
}

func self() reader {
	r := reader{UID: os.Geteuid()}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err == nil {
		r.Caps = uint64(data[0].Effective) | uint64(data[1].Effective)<<32
	}
	return r
}

// lacks gives the capabilities of n that the reader does not have.
func (r reader) lacks(n need) (out need) {
	for _, c := range n {
		if r.Caps&(1<<c) == 0 {
			out = append(out, c)
		}
	}
	return out
}

// explain says why a reading failed in words that tell an operator what to do.
func (r reader) explain(err error, n need) string {
	var late *lateError
	switch {
	case errors.As(err, &late):
		return late.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return err.Error() + ": the host was too slow to answer; try again when it is less busy"
	case len(n) == 0, !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES):
		return err.Error()
	}
	missing := r.lacks(n)
	switch {
	case r.UID != 0 && len(missing) > 0:
		return fmt.Sprintf("%v: run hostaudit as root (needs %v)", err, n)
	case len(missing) > 0:
		return fmt.Sprintf("%v: root lacks %v here (in a container, or a unit with fewer capabilities)", err, missing)
	}
	return fmt.Sprintf("%v: hostaudit has %v, so it is a user namespace, a security module, or a process with more capabilities than its own that stands in the way", err, n)
}

// lateError is a part that did not come back.
type lateError struct {
	what  string
	limit time.Duration
}

func (e *lateError) Error() string {
	return fmt.Sprintf("no answer within %v: the reading of %s was given up; try again when the host is less busy", e.limit, e.what)
}
