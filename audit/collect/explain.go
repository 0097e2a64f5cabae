package collect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// need is what a reading takes, for the sentence about why it failed.
type need string

const (
	needAdmin   need = "CAP_NET_ADMIN"
	needSys     need = "CAP_SYS_ADMIN"
	needBPF     need = "CAP_BPF or CAP_SYS_ADMIN, and CAP_NET_ADMIN"
	needOwners  need = "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
	needFiles   need = "CAP_DAC_READ_SEARCH"
	needNothing need = ""
)

// reader is the effective user id of who read the host: advice turns on it, in
// a replay as well.
type reader int

// explain says why a reading failed in words that tell an operator what to do.
func (uid reader) explain(err error, n need) string {
	var late *lateError
	switch {
	case errors.As(err, &late):
		return late.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return err.Error() + ": the host was too slow to answer; try again when it is less busy"
	case (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)) && n != needNothing:
		if uid == 0 {
			return fmt.Sprintf("%v: needs %s, which root lacks here (in a container, a user namespace, or a unit with fewer capabilities)", err, n)
		}
		return fmt.Sprintf("%v: run hostaudit as root (needs %s)", err, n)
	}
	return err.Error()
}

// lateError is a part that did not come back.
type lateError struct {
	what  string
	limit time.Duration
}

func (e *lateError) Error() string {
	return fmt.Sprintf("no answer within %v: the reading of %s was given up; try again when the host is less busy", e.limit, e.what)
}
