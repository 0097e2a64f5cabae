package listeners

import (
	"context"
	"io"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/listeners/sockdiag"
)

// The benchmarks measure the namespace they run in: an empty one under plain
// `go test -bench`, a full one under listeners/load:
//
//	go test -c -o /tmp/listeners.test ./listeners
//	go run ./listeners/load -timewait 1000000 -established 60000 -listen 1000 -procs 10000 -- /tmp/listeners.test -test.run '^$' -test.bench .
//
// Beside each reader stands the tool an operator would use, in the same run.

// measure runs fn b.N times and reports the processor time of this process and
// of its children beside the wall time.
func measure(b *testing.B, fn func() error) {
	b.Helper()
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		if err := fn(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var ru unix.Rusage
		if err := unix.Getrusage(who, &ru); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
	return sum
}

// tool measures another program, its output thrown away through a pipe.
func tool(b *testing.B, name string, args ...string) {
	b.Helper()
	b.Run(name, func(b *testing.B) {
		if _, err := exec.LookPath(name); err != nil {
			missing(b, "%v", err)
		}
		measure(b, func() error {
			cmd := exec.Command(name, args...)
			out, err := cmd.StdoutPipe()
			if err != nil {
				return err
			}
			if err := cmd.Start(); err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, out); err != nil {
				return err
			}
			return cmd.Wait()
		})
	})
}

func BenchmarkListeners(b *testing.B) {
	b.Run("hostaudit", func(b *testing.B) {
		n := 0
		measure(b, func() error {
			live, err := OpenLive("")
			if err != nil {
				return err
			}
			defer live.Close()
			t, err := Read(context.Background(), live)
			n = len(t.Listeners)
			return err
		})
		b.ReportMetric(float64(n), "listeners")
	})
	tool(b, "ss", "-Htln")
}

func BenchmarkOwners(b *testing.B) {
	live, err := OpenLive("")
	if err != nil {
		b.Fatal(err)
	}
	defer live.Close()
	t, err := Read(context.Background(), live)
	if err != nil {
		b.Fatal(err)
	}
	inodes := t.Inodes()
	for _, c := range []struct {
		name string
		opt  OwnerOptions
	}{
		{"proc", OwnerOptions{Method: "proc"}},
		{"proc-first", OwnerOptions{Method: "proc", FirstOnly: true}},
		{"bpf", OwnerOptions{Method: "bpf"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			if c.name == "bpf" {
				wantIterators(b)
			}
			measure(b, func() error {
				_, err := ReadOwners(context.Background(), inodes, c.opt)
				return err
			})
		})
	}
	tool(b, "ss", "-Htlnp")
	tool(b, "lsof", "-nP", "-iTCP", "-sTCP:LISTEN")
}

func BenchmarkCensus(b *testing.B) {
	live, err := OpenLive("")
	if err != nil {
		b.Fatal(err)
	}
	defer live.Close()
	t, err := Read(context.Background(), live)
	if err != nil {
		b.Fatal(err)
	}
	settings, err := ReadPortSettings(context.Background(), "")
	if err != nil {
		b.Fatal(err)
	}
	for _, bound := range []bool{false, true} {
		name := "hostaudit"
		if bound {
			name = "hostaudit-bound"
		}
		b.Run(name, func(b *testing.B) {
			var sockets uint64
			measure(b, func() error {
				c, err := ReadCensus(context.Background(), live, CensusOptions{Settings: settings, Table: t, Bound: bound})
				if err == nil {
					sockets = c.Sockets
				}
				return err
			})
			b.ReportMetric(float64(sockets), "sockets")
		})
	}
	b.Run("receive-only", func(b *testing.B) {
		measure(b, func() error {
			return live.Dump(context.Background(), sockdiag.Query{Protocol: sockdiag.TCP, States: sockdiag.AllTCP}, func([]byte) error { return nil })
		})
	})
	tool(b, "ss", "-Htan")
}

func BenchmarkSample(b *testing.B) {
	measure(b, func() error {
		_, err := ReadSample(context.Background(), "")
		return err
	})
}

func BenchmarkNamespaces(b *testing.B) {
	measure(b, func() error {
		_, err := ReadNamespaces(context.Background(), "", nil)
		return err
	})
}
