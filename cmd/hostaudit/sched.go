package main

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// asBatch tells the kernel that this program works and talks to nobody
// (SCHED_BATCH, sched(7)): its threads, which wake each other a hundred times in a
// scan, then take no processor away from one another, nor from anybody else. Threads
// made later are as the one that makes them. It may be refused, and nothing is lost.
func asBatch() { setPolicy(unix.SCHED_BATCH) }

// setPolicy sets the policy of all threads, and of those that a thread which had
// not been set yet made meanwhile.
func setPolicy(policy uint32) {
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
			if now, err := unix.SchedGetAttr(tid, 0); err != nil || now.Policy == policy {
				continue
			}
			again = unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy}, 0) == nil || again
		}
	}
}
