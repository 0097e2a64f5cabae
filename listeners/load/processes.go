package main

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// makeProcesses makes idle processes of a few pages each: forks of this one that
// never run the Go runtime again. (Ten thousand Go programs, or even ten
// thousand times sleep(1), would cost more than the host to be measured.)
// Process i keeps listener i, and this one lets go of it.
func makeProcesses(s size, listeners []int) error {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(null)
	parent := os.Getpid()
	for i := range s.Procs {
		keep := null
		if i < len(listeners) {
			keep = listeners[i]
		}
		_, errno := fork(uintptr(keep), uintptr(s.FDs), uintptr(parent))
		if errno != 0 {
			return fmt.Errorf("process %d: %w", i, errno)
		}
		if i < len(listeners) {
			unix.Close(listeners[i])
		}
	}
	return nil
}

// fork makes a child that keeps one descriptor, opens sockets until it has fds of
// them, and sleeps until its parent dies. In the child only raw system calls are
// made: the other threads of the runtime do not exist there.
//
//go:nosplit
//go:norace
func fork(keep, fds, parent uintptr) (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
	if ppid, _, _ := syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); ppid != parent {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
	}
	if keep != 0 {
		syscall.RawSyscall(unix.SYS_DUP3, keep, 0, 0)
	}
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 1, 1<<31-1, 0)
	for n := uintptr(1); n < fds; n++ {
		switch {
		case n == 1:
			syscall.RawSyscall(unix.SYS_EVENTFD2, 0, 0, 0)
		case n%3 == 0:
			syscall.RawSyscall(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		default:
			syscall.RawSyscall(unix.SYS_DUP, 1, 0, 0)
		}
	}
	for {
		syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}
