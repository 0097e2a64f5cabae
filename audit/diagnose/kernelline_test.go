package diagnose

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// recorded are records of /dev/kmsg as kernels wrote them: Linux 6.18 where
// nothing else is said.
var recorded = []struct {
	name  string
	lines string
	want  []KernelEvent
}{
	{
		"memory limit of a group, version 2",
		"6,900,100000000,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/system.slice/chat.service,task_memcg=/system.slice/chat.service,task=php,pid=4711,uid=33\n" +
			"3,901,100000001,-;Memory cgroup out of memory: Killed process 4711 (php) total-vm:272140kB, anon-rss:15656kB, file-rss:5504kB, shmem-rss:0kB, UID:33 pgtables:92kB oom_score_adj:0\n",
		[]KernelEvent{{Kind: KernelOOM, At: 100000001 * time.Microsecond, PID: 4711, Comm: "php", Group: "/system.slice/chat.service", Limited: "/system.slice/chat.service"}},
	},
	{
		"the host's memory",
		"6,900,100,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/system.slice/db\\x5cx2d1.service,task=mysqld,pid=7,uid=0\n" +
			"3,901,101,-;Out of memory: Killed process 7 (mysqld) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0\n",
		[]KernelEvent{{Kind: KernelOOM, At: 101 * time.Microsecond, PID: 7, Comm: "mysqld", Group: `/system.slice/db\x2d1.service`}},
	},
	{
		"a whole group (memory.oom.group)",
		"6,1,1,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a.slice,task_memcg=/a.slice/x.service,task=sh,pid=10,uid=0\n" +
			"3,2,2,-;Memory cgroup out of memory: Killed process 10 (sh) total-vm:1kB, anon-rss:1kB\n" +
			"6,3,3,-;Tasks in /a.slice are going to be killed due to memory.oom.group set\n" +
			"3,4,4,-;Memory cgroup out of memory: Killed process 11 (sleep) total-vm:1kB, anon-rss:1kB\n",
		[]KernelEvent{
			{Kind: KernelOOM, At: 2 * time.Microsecond, PID: 10, Comm: "sh", Group: "/a.slice/x.service", Limited: "/a.slice"},
			{Kind: KernelOOM, At: 4 * time.Microsecond, PID: 11, Comm: "sleep", Group: "/a.slice", Limited: "/a.slice"},
		},
	},
	{
		"Linux 3.10 and 4.18", "3,4,4,-;Killed process 99 (java), UID 33, total-vm:8kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB\n3,5,5,-;Killed process 98 (java) total-vm:8kB, anon-rss:1kB\n",
		[]KernelEvent{{Kind: KernelOOM, At: 4 * time.Microsecond, PID: 99, Comm: "java"}, {Kind: KernelOOM, At: 5 * time.Microsecond, PID: 98, Comm: "java"}},
	},
	{
		"crashes",
		"6,1,1,-;python3[28517]: segfault at 0 ip 000055d0e8d3d0a1 sp 00007ffd3c5ab9d0 error 4 in python3.11[1370a1,55d0e8c25000+2b1000] likely on CPU 1 (core 1, socket 0)\n" +
			"6,2,2,-;traps: nginx[12] general protection fault ip:7f0000000000 sp:7ffc00000000 error:0 in libc.so.6[28000,7f0000000000+155000]\n" +
			"6,3,3,-;traps: chat[13] trap invalid opcode ip:401136 sp:7ffc00000000 error:0 in chat[1136,401000+1000]\n",
		[]KernelEvent{
			{Kind: KernelFault, At: 1 * time.Microsecond, PID: 28517, Comm: "python3"}, {Kind: KernelFault, At: 2 * time.Microsecond, PID: 12, Comm: "nginx"},
			{Kind: KernelFault, At: 3 * time.Microsecond, PID: 13, Comm: "chat"},
		},
	},
	{
		"SYN floods, of three ages",
		"6,1,1,-;TCP: request_sock_TCP: Possible SYN flooding on port 0.0.0.0:8080. Sending cookies.\n" +
			"6,2,2,-;TCP: request_sock_TCPv6: Possible SYN flooding on port [::]:443. Dropping request.\n" +
			"6,3,3,-;TCP: request_sock_TCP: Possible SYN flooding on port 80. Sending cookies.  Check SNMP counters.\n" +
			"6,4,4,-;possible SYN flooding on port 81. Sending cookies.\n",
		[]KernelEvent{
			{Kind: KernelSynFlood, At: 1 * time.Microsecond, Port: 8080}, {Kind: KernelSynFlood, At: 2 * time.Microsecond, Port: 443, Dropped: true},
			{Kind: KernelSynFlood, At: 3 * time.Microsecond, Port: 80}, {Kind: KernelSynFlood, At: 4 * time.Microsecond, Port: 81},
		},
	},
	{
		"tables that are full",
		"4,1,1,-;nf_conntrack: nf_conntrack: table full in netns 4026532500, dropping packet\n4,2,2,-;nf_conntrack: nf_conntrack: table full, dropping packet\n" +
			"4,3,3,-;nf_conntrack: table full, dropping packet.\n6,4,4,-;neighbour: arp_cache: neighbor table overflow!\n6,5,5,-;neighbour: ndisc_cache: neighbor table overflow!\n" +
			"6,6,6,-;TCP: out of memory -- consider tuning tcp_mem\n",
		[]KernelEvent{
			{Kind: KernelConntrack, At: 1 * time.Microsecond, Namespace: 4026532500}, {Kind: KernelConntrack, At: 2 * time.Microsecond}, {Kind: KernelConntrack, At: 3 * time.Microsecond},
			{Kind: KernelNeighbour, At: 4 * time.Microsecond}, {Kind: KernelNeighbour, At: 5 * time.Microsecond}, {Kind: KernelTCPMemory, At: 6 * time.Microsecond},
		},
	},
	// What is not the kernel's, or pretends to be something else.
	{"a program wrote it", "12,1,1,-;nf_conntrack: nf_conntrack: table full, dropping packet\n30,2,2,-;Out of memory: Killed process 1 (init) total-vm:1kB\n", nil},
	{
		"a name that imitates a kill",
		"3,1,1,-;Out of memory: Killed process 9 (x) total-vm:1kB) total-vm:1kB, anon-rss:1kB\n6,2,2,-;a\\x0aKilled pro[8]: segfault at 0 ip 1 sp 1 error 4 in a[1+1]\n",
		[]KernelEvent{{Kind: KernelOOM, At: time.Microsecond, PID: 9, Comm: "x) total-vm:1kB"}, {Kind: KernelFault, At: 2 * time.Microsecond, PID: 8, Comm: "a\nKilled pro"}},
	},
	{
		"a group that imitates another's kill",
		"6,1,1,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/user.slice/x,task_memcg=/system.slice/chat.service,task=php,pid=5,uid=1,task_memcg=/user.slice/x,task=sh,pid=5,uid=1000\n" +
			"3,2,2,-;Memory cgroup out of memory: Killed process 5 (sh) total-vm:1kB, anon-rss:1kB\n",
		[]KernelEvent{{Kind: KernelOOM, At: 2 * time.Microsecond, PID: 5, Comm: "sh"}},
	},
	{"a kill of another process than the line before names", "6,1,1,-;oom-kill:constraint=CONSTRAINT_NONE,global_oom,task_memcg=/a,task=b,pid=3,uid=0\n3,2,2,-;Out of memory: Killed process 4 (c) total-vm:1kB\n",
		[]KernelEvent{{Kind: KernelOOM, At: 2 * time.Microsecond, PID: 4, Comm: "c"}}},
	{"no such line", "6,1,1,-;eth0: link becomes ready\n SUBSYSTEM=net\n6,2,2,-;process 'x' launched 'Killed process 1 (a) total-vm:' with NULL argv\n;\n6,3;x\n6,x,y,-;TCP: out of memory -- consider tuning tcp_mem\n", nil},
}

// records gives a parser the records of a text, as read(2) does one at a time.
func records(text string) *KernelLog {
	p := kernelParser{began: time.Unix(1_000_000_000, 0).UTC()}
	for line := range strings.Lines(text) {
		p.record([]byte(line))
	}
	return p.done()
}

// TestKernelLines: what recorded lines of the kernel say, and what lines do not
// say that only look alike.
func TestKernelLines(t *testing.T) {
	for _, c := range recorded {
		t.Run(c.name, func(t *testing.T) {
			got := records(c.lines)
			for i := range got.Events {
				e := &got.Events[i]
				if e.Text == "" || !e.Time.Equal(time.Unix(1_000_000_000, 0).Add(e.At)) {
					t.Errorf("event %d at %s, %q", i, e.Time, e.Text)
				}
			}
			if d := cmp.Diff(c.want, got.Events, cmpopts.IgnoreFields(KernelEvent{}, "Text", "Time"), cmpopts.EquateEmpty()); d != "" {
				t.Error(d)
			}
		})
	}
	var many strings.Builder
	for i := range 3 * maxKernelKept {
		fmt.Fprintf(&many, "4,%d,%d,-;nf_conntrack: nf_conntrack: table full, dropping packet\n", i, i)
	}
	if got := records(many.String()).Events; len(got) != maxKernelKept || got[0].At != 2*maxKernelKept*time.Microsecond {
		t.Errorf("%d events are kept, the first of %s", len(got), got[0].At)
	}
}

// FuzzKernelLog: whatever stands in a record, nothing panics, no name is longer
// than the kernel allows, and only the kernel's own lines count.
func FuzzKernelLog(f *testing.F) {
	for _, c := range recorded {
		f.Add(c.lines)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, e := range records(text).Events {
			if len([]rune(e.Comm)) > 15 || e.Kind == "" || e.PID < 0 || len(e.Text) > 300 {
				t.Errorf("%+v", e)
			}
		}
		var foreign strings.Builder
		for line := range strings.Lines(text) {
			foreign.WriteString("1" + line) // 1x, 1xx: no facility of the kernel's, or no record
		}
		for _, e := range records(foreign.String()).Events {
			if !strings.HasPrefix(text, ",") && !strings.Contains(text, "\n,") {
				t.Errorf("a program's line counts: %+v", e)
			}
		}
	})
}
