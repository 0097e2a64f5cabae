package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cost is what something took. CPU is user and system time together; RSS the
// peak of memory in bytes, of the largest process.
type cost struct {
	Wall, CPU time.Duration
	RSS       int64
}

func (c cost) plus(d cost) cost {
	return cost{c.Wall + d.Wall, c.CPU + d.CPU, max(c.RSS, d.RSS)}
}

// median takes each figure's median by itself.
func median(costs []cost) cost {
	var wall, cpu, rss []int64
	for _, c := range costs {
		wall, cpu, rss = append(wall, int64(c.Wall)), append(cpu, int64(c.CPU)), append(rss, c.RSS)
	}
	mid := func(v []int64) int64 {
		if len(v) == 0 {
			return 0
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	return cost{time.Duration(mid(wall)), time.Duration(mid(cpu)), mid(rss)}
}

// execRole makes this program run one command and print its cost.
const execRole = "-exec"

// measureHere runs argv, its output thrown away, and prints its cost as JSON and
// its exit status. It is a process of its own because a child inherits the peak
// of memory of whoever starts it (exec_mmap), and the one that measures is
// larger than what it measures.
func measureHere(argv []string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	begin := time.Now()
	err := cmd.Run()
	wall := time.Since(begin)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return errors.New("the system tells no resource usage")
	}
	return json.NewEncoder(os.Stdout).Encode(measured{
		cost{wall, time.Duration(ru.Utime.Nano() + ru.Stime.Nano()), ru.Maxrss << 10}, cmd.ProcessState.ExitCode(),
	})
}

type measured struct {
	Cost cost
	Exit int
}

// program gives a side of a comparison that runs commands one after the other.
// Exit statuses above 3 are failures; below, tools say with them what they found.
func program(commands ...[]string) func() (cost, error) {
	return func() (cost, error) {
		var sum cost
		for _, argv := range commands {
			cmd := exec.Command("/proc/self/exe", append([]string{execRole}, argv...)...)
			var complaint bytes.Buffer
			cmd.Stderr = &complaint
			out, err := cmd.Output()
			if err != nil {
				return sum, fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, complaint.Bytes())
			}
			var m measured
			if err := json.Unmarshal(out, &m); err != nil {
				return sum, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
			}
			if m.Exit > 3 && argv[0] != "sysctl" || m.Exit < 0 { // sysctl -a minds keys that nobody may read
				return sum, fmt.Errorf("%s: exit status %d", strings.Join(argv, " "), m.Exit)
			}
			sum = sum.plus(m.Cost)
		}
		return sum, nil
	}
}

// inside gives a side that is a function of this process. It begins as in a
// process of its own: what earlier turns left is swept away beforehand, and
// garbage is not collected before there are some 30 MB of it (delayCollection of
// hostaudit).
func inside(f func() error) func() (cost, error) {
	return func() (cost, error) {
		runtime.GC()
		defer debug.SetGCPercent(debug.SetGCPercent(400))
		var before, after unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
			return cost{}, err
		}
		begin := time.Now()
		err := f()
		wall := time.Since(begin)
		if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
			return cost{}, err
		}
		used := func(r *unix.Rusage) time.Duration { return time.Duration(r.Utime.Nano() + r.Stime.Nano()) }
		return cost{Wall: wall, CPU: used(&after) - used(&before)}, err
	}
}

// output runs a command for its standard output, whatever it ends with below 4.
func output(argv ...string) ([]byte, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() < 4 && len(out) > 0 {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, complaint.Bytes())
	}
	return out, nil
}

// feed runs a command with text as its standard input.
func feed(text io.Reader, argv ...string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = text
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %.500s", strings.Join(argv, " "), err, out)
	}
	return nil
}
