package main

import (
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// All threads of the program work as a batch, those that are made later too, and as
// nicely as they were started.
func TestAsBatch(t *testing.T) {
	if os.Getenv("HOSTAUDIT_TEST_BATCH") == "" {
		cmd := exec.Command("nice", "-n", "5", "/proc/"+strconv.Itoa(os.Getpid())+"/exe", "-test.run", "^TestAsBatch$", "-test.v")
		cmd.Env = append(os.Environ(), "HOSTAUDIT_TEST_BATCH=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	nice, err := unix.SchedGetAttr(0, 0)
	if err != nil || nice.Nice < 5 {
		t.Fatalf("started with %+v, %v", nice, err)
	}
	policies := func() map[uint32]int {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		seen := map[uint32]int{}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				t.Fatal(err)
			}
			a, err := unix.SchedGetAttr(tid, 0)
			if err != nil {
				t.Fatal(err)
			}
			seen[a.Policy]++
			if a.Nice != nice.Nice {
				t.Errorf("thread %d of policy %d is at nice %d, was started at %d", tid, a.Policy, a.Nice, nice.Nice)
			}
		}
		return seen
	}
	// Another test of this package may have made a batch of what started this one.
	changePolicy(unix.SCHED_BATCH, unix.SCHED_NORMAL)
	if before := policies(); before[unix.SCHED_BATCH] != 0 {
		t.Fatalf("threads by policy beforehand: %v", before)
	}
	asBatch()
	// Blocked system calls have the runtime make threads.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	for range 8 {
		go func() { _, _ = unix.Read(int(r.Fd()), make([]byte, 1)) }()
	}
	cmd := exec.Command("sleep", "0.1")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	after := policies()
	if len(after) != 1 || after[unix.SCHED_BATCH] < 8 {
		t.Errorf("threads by policy: %v", after)
	}
	w.Close()
	// Of a policy that somebody chose nothing is changed.
	changePolicy(unix.SCHED_BATCH, unix.SCHED_IDLE)
	asBatch()
	if chosen := policies(); len(chosen) != 1 || chosen[unix.SCHED_IDLE] < 8 {
		t.Errorf("threads by policy: %v", chosen)
	}
}
