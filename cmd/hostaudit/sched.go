package main

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// asBatch tells the kernel that this program works and talks to nobody
// (SCHED_BATCH, sched(7)): its threads, which wake each other a hundred times in a
// scan, then take no processor away from one another, nor from anybody else. Threads
// made later are as the one that makes them. It may be refused, and nothing is lost;
// who was started with a policy of the operator's (chrt) keeps it.
func asBatch() { changePolicy(unix.SCHED_NORMAL, unix.SCHED_BATCH) }

// changePolicy changes the policy of all threads that have this one, and of those
// that a thread which had not been changed yet made meanwhile.
func changePolicy(from, to uint32) {
	for again := true; again; {
		again = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				continue
			}
			if now, err := unix.SchedGetAttr(tid, 0); err != nil || now.Policy != from {
				continue
			}
			again = unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: to}, 0) == nil || again
		}
	}
}
