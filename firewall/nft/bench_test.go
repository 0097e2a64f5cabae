package nft

import (
	"context"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// discard is a Source whose dumps are received and not looked at; what Read
// costs beyond it is decoding.
type discard struct{ *Conn }

func (d discard) Dump(ctx context.Context, req Request) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for msg, err := range d.Conn.Dump(ctx, req) {
			_ = msg
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// benchSizes are the gates' rulesets; BENCH_DIVISOR makes them smaller.
func benchRulesets(divisor int) map[string]string {
	var one, many, set strings.Builder
	one.WriteString("table inet t {\nchain c {\n")
	for i := range 50000 / divisor {
		fmt.Fprintf(&one, "ip saddr 10.%d.%d.%d tcp dport %d counter accept\n", i>>16&255, i>>8&255, i&255, i%65000+1)
	}
	one.WriteString("}\n}\n")
	many.WriteString("table inet t {\n")
	for c := range 5000 / divisor {
		fmt.Fprintf(&many, "chain c%d {\n", c)
		for i := range 10 {
			fmt.Fprintf(&many, "ip saddr 10.%d.%d.%d tcp dport %d counter accept\n", c>>8&255, c&255, i, c+1)
		}
		many.WriteString("}\n")
	}
	many.WriteString("}\n")
	set.WriteString("table inet t {\nset s { type ipv4_addr; elements = {")
	for i := range 100000 / divisor {
		fmt.Fprintf(&set, "10.%d.%d.%d,", i>>16&255, i>>8&255, i&255)
	}
	set.WriteString("} }\nset i { type ipv4_addr; flags interval; elements = {")
	for i := range 20000 / divisor {
		fmt.Fprintf(&set, "10.%d.%d.0-10.%d.%d.9,", i>>8&255, i&255, i>>8&255, i&255)
	}
	set.WriteString("} }\n}\n")
	return map[string]string{"rules": one.String(), "chains": many.String(), "sets": set.String()}
}

// BenchmarkRead compares, interleaved and by medians, Read with only receiving
// the same dumps and with `nft list ruleset`.
func BenchmarkRead(b *testing.B) {
	needTools(b, "nft")
	divisor := 1
	if os.Getenv("BENCH_DIVISOR") != "" {
		fmt.Sscan(os.Getenv("BENCH_DIVISOR"), &divisor)
	}
	rulesets := benchRulesets(divisor)
	for _, name := range []string{"rules", "chains", "sets"} {
		b.Run(name, func(b *testing.B) {
			inNetns(b)
			load(b, rulesets[name])
			src, err := Open()
			if err != nil {
				b.Fatal(err)
			}
			defer src.Close()
			ctx := context.Background()
			var receive, read, nft, receiveCPU, readCPU []time.Duration
			var allocated uint64
			for range max(b.N, 5) {
				rec := &requests{Conn: src}
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				wall, cpu := measure(func() {
					rs, err := Read(ctx, rec, Options{})
					if err != nil || len(rs.Tables) != 1 {
						b.Fatal("nothing was read: ", err)
					}
				})
				runtime.ReadMemStats(&after)
				allocated = after.TotalAlloc - before.TotalAlloc
				read, readCPU = append(read, wall), append(readCPU, cpu)
				runtime.GC()
				wall, cpu = measure(func() {
					for _, req := range rec.made {
						if req.Type == msgGetGen {
							src.Get(ctx, req)
							continue
						}
						for _, err := range (discard{src}).Dump(ctx, req) {
							if err != nil && req.Subsystem == subsysTables {
								b.Fatal(err)
							}
						}
					}
				})
				receive, receiveCPU = append(receive, wall), append(receiveCPU, cpu)
				wall, _ = measure(func() {
					if err := exec.Command("nft", "list", "ruleset").Run(); err != nil {
						b.Fatal(err)
					}
				})
				nft = append(nft, wall)
			}
			b.ReportMetric(float64(median(read))/float64(median(receive)), "read/receive")
			b.ReportMetric(float64(median(readCPU))/float64(median(receiveCPU)), "read/receive-CPU")
			b.ReportMetric(float64(median(read))/float64(median(nft)), "read/nft-list")
			b.ReportMetric(float64(median(read).Milliseconds()), "ms/read")
			b.ReportMetric(float64(allocated)/1e6, "MB/read")
		})
	}
}

// requests notes what is asked.
type requests struct {
	*Conn
	made []Request
}

func (r *requests) Dump(ctx context.Context, req Request) iter.Seq2[[]byte, error] {
	r.made = append(r.made, req)
	return r.Conn.Dump(ctx, req)
}

func (r *requests) Get(ctx context.Context, req Request) ([]byte, error) {
	r.made = append(r.made, req)
	return r.Conn.Get(ctx, req)
}

// measure runs f and tells its time, and that of the processor in this process.
func measure(f func()) (wall, cpu time.Duration) {
	var before, after unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &before)
	start := time.Now()
	f()
	wall = time.Since(start)
	unix.Getrusage(unix.RUSAGE_SELF, &after)
	used := func(r *unix.Rusage) int64 { return r.Utime.Nano() + r.Stime.Nano() }
	return wall, time.Duration(used(&after) - used(&before))
}

func median(ds []time.Duration) time.Duration {
	ds = slices.Clone(ds)
	slices.Sort(ds)
	return ds[len(ds)/2]
}

// BenchmarkDecode decodes a recorded ruleset again and again.
func BenchmarkDecode(b *testing.B) {
	needTools(b, "nft")
	inNetns(b)
	load(b, benchRulesets(10)[os.Getenv("BENCH_DECODE")])
	src, err := Open()
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	rec := Record(src)
	if _, err := Read(context.Background(), rec, Options{}); err != nil {
		b.Fatal(err)
	}
	blob, err := rec.MarshalBinary()
	if err != nil {
		b.Fatal(err)
	}
	again, err := Replay(blob)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if _, err := Read(context.Background(), again, Options{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/5000, "ns/rule")
}
