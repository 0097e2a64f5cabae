package collect

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// BenchmarkSmallHost holds a whole reading of a small host (50 listeners, some
// 300 processes, 200 rules of each of two back ends) against what an operator
// types instead, turn by turn, both as processes of their own. The ceiling of
// the ratio of medians is 0.35 (make bench); Quick, since the second of sampling
// is waited for on purpose.
func BenchmarkSmallHost(b *testing.B) {
	lab.Need(b, "nft", "iptables-legacy")
	for _, tool := range []string{"ss", "sysctl"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(b, "%s", tool)
		}
	}
	l := lab.New(b, lab.Topology{})
	var specs []lab.Listen
	for i := range 50 {
		specs = append(specs, lab.Listen{Proto: lab.TCP, Addr: anyAddr(uint16(8000 + i))})
	}
	l.Server.Listen(b, specs...)
	for range 250 {
		sleeper(b, 0)
	}
	var native, legacy strings.Builder
	native.WriteString("table ip bench {\n chain c { type filter hook input priority 0;\n")
	legacy.WriteString("*filter\n:INPUT ACCEPT\n")
	for i := range 200 {
		fmt.Fprintf(&native, "ip saddr 10.1.%d.0/24 tcp dport %d drop\n", i, 8000+i)
		fmt.Fprintf(&legacy, "-A INPUT -s 10.2.%d.0/24 -p tcp --dport %d -j DROP\n", i, 8000+i)
	}
	l.Server.Load(b, lab.NFT, native.String()+"}\n}\n")
	l.Server.Load(b, lab.IPTablesLegacy, legacy.String()+"COMMIT\n")

	median := func(times []time.Duration) float64 {
		slices.Sort(times)
		return times[len(times)/2].Seconds()
	}
	cpu := func(who int) time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	var ours, theirs, ourCPU, theirCPU []time.Duration
	for b.Loop() {
		start, used := time.Now(), cpu(syscall.RUSAGE_CHILDREN)
		l.Server.Do(func() {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), roleVar+"=read")
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		})
		ours, ourCPU = append(ours, time.Since(start)), append(ourCPU, cpu(syscall.RUSAGE_CHILDREN)-used)
		start, used = time.Now(), cpu(syscall.RUSAGE_CHILDREN)
		for _, argv := range [][]string{{"ss", "-tlnp"}, {"iptables-legacy-save"}, {"nft", "list", "ruleset"}} {
			if _, err := l.Server.Exec(b.Context(), "", argv...); err != nil {
				b.Fatal(err)
			}
		}
		// Some keys may be read by nobody; sysctl says so and goes on.
		_, _ = l.Server.Exec(b.Context(), "", "sysctl", "-a")
		theirs, theirCPU = append(theirs, time.Since(start)), append(theirCPU, cpu(syscall.RUSAGE_CHILDREN)-used)
	}
	b.ReportMetric(median(ours)*1e3, "ms/reading")
	b.ReportMetric(median(theirs)*1e3, "ms/pipeline")
	b.ReportMetric(median(ours)/median(theirs), "ratio")
	b.ReportMetric(median(ourCPU)/median(theirCPU), "cpu-ratio")
}
