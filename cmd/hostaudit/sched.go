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
// who was started with a policy of the operator's (chrt) keeps it, and everybody stays
// as nice as before.
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
			now, err := unix.SchedGetAttr(tid, 0)
			if err != nil || now.Policy != from {
				continue
			}
			// What is not said is set to zero: how nice the operator wants it as well.
			like := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: to, Nice: now.Nice, Flags: now.Flags}
			again = unix.SchedSetAttr(tid, &like, 0) == nil || again
		}
	}
}
