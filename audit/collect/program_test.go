package collect

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

var native = binary.NativeEndian

// pass makes a program that lets everything pass.
func pass(t *testing.T, typ ebpf.ProgramType, attach ebpf.AttachType, verdict int32) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "pass_" + strings.ToLower(typ.String()), Type: typ, AttachType: attach, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()}})
	if err != nil {
		missing(t, "a kernel that takes programs of type %v: %v", typ, err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func idOf(t *testing.T, p *ebpf.Program) uint32 {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return uint32(id)
}

func nameOf(t *testing.T, p *ebpf.Program) string {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info.Name
}

// programsOf gives the programs of one kind and none that another test, or the
// machine, may have somewhere.
func programsOf(ns *reach.Namespace, kind string, ids ...uint32) []reach.Program {
	var out []reach.Program
	for _, p := range ns.Programs {
		if p.Kind != kind {
			continue
		}
		for _, id := range ids {
			if p.ID == id {
				out = append(out, p)
			}
		}
	}
	return out
}

func eth0(t *testing.T, n *lab.Namespace) netlink.Link {
	t.Helper()
	l, err := n.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestProgramsOnLinks attaches XDP, tc and tcx programs for real.
func TestProgramsOnLinks(t *testing.T) {
	needRoot(t)
	l := lab.New(t, lab.Topology{})
	if got := home(hostIn(t, l.Server, Options{})); len(got.Programs) != 0 || got.Unread[partPrograms] != "" {
		t.Fatalf("programs of an empty host: %+v, %v", got.Programs, got.Unread)
	}
	dev := eth0(t, l.Server).Attrs().Index

	xdp := pass(t, ebpf.XDP, ebpf.AttachXDP, 2) // XDP_PASS
	tcx := pass(t, ebpf.SchedCLS, ebpf.AttachTCXIngress, -1)
	tcxOut := pass(t, ebpf.SchedCLS, ebpf.AttachTCXEgress, -1)
	lookup := pass(t, ebpf.SkLookup, ebpf.AttachSkLookup, 1) // SK_PASS
	l.Server.Do(func() {
		x, err := link.AttachXDP(link.XDPOptions{Program: xdp, Interface: dev, Flags: link.XDPGenericMode})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { x.Close() })
		for attach, p := range map[ebpf.AttachType]*ebpf.Program{ebpf.AttachTCXIngress: tcx, ebpf.AttachTCXEgress: tcxOut} {
			x, err := link.AttachTCX(link.TCXOptions{Interface: dev, Program: p, Attach: attach})
			if err != nil {
				missing(t, "tcx: %v", err)
			}
			t.Cleanup(func() { x.Close() })
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		n, err := link.AttachNetNs(int(f.Fd()), lookup)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
	})

	ns := home(hostIn(t, l.Server, Options{}))
	for _, c := range []struct {
		prog *ebpf.Program
		want reach.Program
	}{
		{xdp, reach.Program{Kind: "xdp", Place: "eth0 (generic)", Link: dev, In: true}},
		{tcx, reach.Program{Kind: "tc", Place: "eth0 ingress", Link: dev, In: true}},
		{tcxOut, reach.Program{Kind: "tc", Place: "eth0 egress", Link: dev, Out: true}},
		{lookup, reach.Program{Kind: "sk_lookup", Place: "socket lookup", In: true}},
	} {
		c.want.ID, c.want.Name = idOf(t, c.prog), nameOf(t, c.prog)
		if diff := cmp.Diff([]reach.Program{c.want}, programsOf(ns, c.want.Kind, c.want.ID)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.want.Kind, diff)
		}
	}
	// The client's namespace has none of them.
	s := hostIn(t, l.Server, Options{})
	if client := namespaceOf(s, l.Client.Inode()); client == nil || len(client.Programs) != 0 {
		t.Errorf("the client has the server's programs: %+v", client)
	}
}

// TestFilters adds tc filters: programs and actions count, sorting does not.
func TestFilters(t *testing.T) {
	needRoot(t)
	l := lab.New(t, lab.Topology{})
	dev := eth0(t, l.Server)
	cls := pass(t, ebpf.SchedCLS, ebpf.AttachNone, 0)
	add := func(kind string, parent uint32, handle uint32) {
		t.Helper()
		if err := l.Server.Netlink().QdiscAdd(&netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: dev.Attrs().Index, Parent: parent, Handle: handle}, QdiscType: kind}); err != nil {
			missing(t, "qdisc %s: %v", kind, err)
		}
	}
	add("clsact", netlink.HANDLE_CLSACT, netlink.MakeHandle(0xffff, 0))
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		err := l.Server.Netlink().FilterAdd(&netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{LinkIndex: dev.Attrs().Index, Parent: parent, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
			Fd: cls.FD(), Name: "guard", DirectAction: true})
		if err != nil {
			t.Fatal(err)
		}
	}
	// A u32 filter that only sorts, and one with an action.
	l.Server.Run(t, "tc", "filter", "add", "dev", "eth0", "ingress", "prio", "5", "protocol", "ip", "u32", "match", "ip", "dport", "80", "0xffff", "flowid", "1:1")
	ns := home(hostIn(t, l.Server, Options{}))
	index := dev.Attrs().Index
	want := []reach.Program{
		{Kind: "tc", Name: "guard", ID: idOf(t, cls), Place: "eth0 ingress", Link: index, In: true},
		{Kind: "tc", Name: "guard", ID: idOf(t, cls), Place: "eth0 egress", Link: index, Out: true},
	}
	if diff := cmp.Diff(want, ns.Programs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	l.Server.Run(t, "tc", "filter", "add", "dev", "eth0", "ingress", "prio", "6", "protocol", "ip", "u32", "match", "ip", "dport", "81", "0xffff",
		"action", "mirred", "egress", "redirect", "dev", "lo")
	ns = home(hostIn(t, l.Server, Options{}))
	if len(ns.Programs) != 3 || ns.Programs[1].Name != "u32" || !ns.Programs[1].In {
		t.Errorf("with an action: %+v", ns.Programs)
	}
}

// TestControlGroupPrograms: what is in force for the sockets of a listener's
// control group, wherever it hangs; and nothing of other groups.
func TestControlGroupPrograms(t *testing.T) {
	needRoot(t)
	mount, err := cgroupMount()
	if err != nil {
		missing(t, "%v", err)
	}
	top := filepath.Join(mount, fmt.Sprintf("hostaudit-test-%d", os.Getpid()))
	leaf, beside := filepath.Join(top, "leaf"), filepath.Join(top, "beside")
	for _, dir := range []string{top, leaf, beside} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			missing(t, "a control group: %v", err)
		}
		t.Cleanup(func() { os.Remove(dir) })
	}
	l := lab.New(t, lab.Topology{})
	// A listener whose socket is made in the group.
	join := func(dir string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(fmt.Sprint(os.Getpid())), 0); err != nil {
			missing(t, "to enter a control group: %v", err)
		}
	}
	home0, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	var back string
	for line := range strings.Lines(string(home0)) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			back = filepath.Join(mount, p)
		}
	}
	join(leaf)
	l.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: anyAddr(8081)})
	join(back)
	l.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: anyAddr(8082)})

	deny := pass(t, ebpf.CGroupSKB, ebpf.AttachCGroupInetIngress, 1)
	out := pass(t, ebpf.CGroupSKB, ebpf.AttachCGroupInetEgress, 1)
	other := pass(t, ebpf.CGroupSKB, ebpf.AttachCGroupInetIngress, 1)
	for _, a := range []struct {
		path   string
		prog   *ebpf.Program
		attach ebpf.AttachType
	}{{top, deny, ebpf.AttachCGroupInetIngress}, {leaf, out, ebpf.AttachCGroupInetEgress}, {beside, other, ebpf.AttachCGroupInetIngress}} {
		x, err := link.AttachCgroup(link.CgroupOptions{Path: a.path, Attach: a.attach, Program: a.prog})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { x.Close() })
	}
	ns := home(hostIn(t, l.Server, Options{}))
	in := listener(ns, 8081)
	if in == nil || in.Cgroup == 0 {
		t.Fatalf("listener %+v", in)
	}
	base := "/" + filepath.Base(top)
	want := []reach.Program{
		{Kind: "cgroup", Name: nameOf(t, deny), ID: idOf(t, deny), Place: base + " ingress", Cgroup: base + "/leaf", CgroupID: in.Cgroup, In: true},
		{Kind: "cgroup", Name: nameOf(t, out), ID: idOf(t, out), Place: base + "/leaf egress", Cgroup: base + "/leaf", CgroupID: in.Cgroup, Out: true},
	}
	if diff := cmp.Diff(want, programsOf(ns, "cgroup", idOf(t, deny), idOf(t, out), idOf(t, other)), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// A group that is removed while its socket lives on.
	if err := os.Remove(leaf); err != nil {
		t.Fatal(err)
	}
	ns = home(hostIn(t, l.Server, Options{}))
	found := false
	for _, p := range ns.Programs {
		found = found || p.Kind == "cgroup" && p.CgroupID == in.Cgroup && p.In && p.Out && strings.Contains(p.Place, "which is removed")
	}
	if !found {
		t.Errorf("the removed group is not told: %+v, %v", ns.Programs, ns.Unread)
	}
}

// TestNetfilterProgram: a BPF program in a netfilter hook.
func TestNetfilterProgram(t *testing.T) {
	needRoot(t)
	l := lab.New(t, lab.Topology{})
	p := pass(t, ebpf.Netfilter, ebpf.AttachNetfilter, 1) // NF_ACCEPT
	l.Server.Do(func() {
		x, err := link.AttachNetfilter(link.NetfilterOptions{Program: p, ProtocolFamily: link.NetfilterProtoIPv4, Hook: link.NetfilterInetLocalIn, Priority: -128})
		if err != nil {
			missing(t, "netfilter programs: %v", err)
		}
		t.Cleanup(func() { x.Close() })
	})
	ns := home(hostIn(t, l.Server, Options{}))
	got := programsOf(ns, "netfilter", idOf(t, p))
	if len(got) != 1 || got[0].Hook != firewall.Input || got[0].Family != firewall.IPv4 || !got[0].In || got[0].Name != nameOf(t, p) || !strings.HasPrefix(got[0].Place, "ip input") {
		t.Errorf("%+v, %v", got, ns.Unread)
	}
}

// TestVRF names the links in a VRF.
func TestVRF(t *testing.T) {
	l := lab.New(t, lab.Topology{})
	if _, err := l.Server.Exec(t.Context(), "", "ip", "link", "add", "blue", "type", "vrf", "table", "10"); err != nil {
		// Not built into every kernel; the decoding is tested below.
		t.Logf("no VRF in this kernel: %v", err)
	} else {
		l.Server.Run(t, "ip", "link", "set", "eth0", "master", "blue")
		dev := eth0(t, l.Server).Attrs().Index
		ns := home(hostIn(t, l.Server, Options{}))
		if len(ns.Programs) != 2 || ns.Programs[1].Kind != "vrf" || ns.Programs[1].Link != dev {
			t.Errorf("%+v", ns.Programs)
		}
	}
	r := &programReader{links: []linkFact{{Index: 2, Name: "eth0", Master: 5}, {Index: 3, Name: "eth1"}, {Index: 5, Name: "blue", Kind: "vrf"}}}
	r.vrf()
	want := []reach.Program{
		{Kind: "vrf", Name: "blue", Place: "blue", Link: 5, In: true, Out: true},
		{Kind: "vrf", Name: "blue", Place: "eth0 in VRF blue", Link: 2, In: true, Out: true},
	}
	if diff := cmp.Diff(want, r.out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestIPVS reads the kernel's own form of the table (ip_vs_info_seq_show).
func TestIPVS(t *testing.T) {
	table := "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n" +
		"TCP  0A090002:0050 rr  \n  -> 0A580002:0050      Masq    1      0          0         \nFWM  00000001 wlc\n"
	a := recordedAnswers([]answer{{Key: "net ip_vs", Parts: [][]byte{[]byte(table)}}}, native)
	got, err := readIPVS(a)
	want := []reach.Program{{Kind: "ipvs", Name: "TCP 0A090002:0050 rr", Place: "input", In: true}, {Kind: "ipvs", Name: "FWM 00000001 wlc", Place: "input", In: true}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	absent := recordedAnswers([]answer{{Key: "net ip_vs", Err: recordedError(unix.ENOENT)}}, native)
	if got, err := readIPVS(absent); got != nil || err != nil {
		t.Errorf("without IPVS: %v, %v", got, err)
	}
	denied := recordedAnswers([]answer{{Key: "net ip_vs", Err: recordedError(unix.EACCES)}}, native)
	if _, err := readIPVS(denied); err == nil {
		t.Error("a refusal reads as no services")
	}
}

// TestHookDump decodes a hook dump with a BPF program and an nftables chain
// (nfnl_hook_dump_one); not every kernel has nfnetlink_hook.
func TestHookDump(t *testing.T) {
	info := func(typ uint32, desc []byte) []byte {
		return attr([]byte{unix.NFPROTO_IPV4, 0, 0, 0}, 6|1<<15, append(attr(nil, 2, big32(typ)), attr(nil, 1|1<<15, desc)...))
	}
	id, ok, err := decodeHookProgram(info(2, attr(nil, 1, big32(77))), native)
	if id != 77 || !ok || err != nil {
		t.Errorf("%d, %v, %v", id, ok, err)
	}
	if _, ok, err := decodeHookProgram(info(1, attr(nil, 1, []byte("filter\x00"))), native); ok || err != nil {
		t.Errorf("a chain: %v, %v", ok, err)
	}
	if _, _, err := decodeHookProgram([]byte{1, 2}, native); err == nil {
		t.Error("a cut message is no error")
	}
}

// TestUntoldGroups: listeners whose control group is not told may have programs
// where the machine has any.
func TestUntoldGroups(t *testing.T) {
	table := &listeners.Table{Listeners: []listeners.Listener{{Socket: listeners.Socket{Untold: []string{listeners.FactCgroup}}}, {Socket: listeners.Socket{Cgroup: 9}}, {Socket: listeners.Socket{Cgroup: 9}}}}
	g := groupsOf(table)
	if len(g.ids) != 1 || g.ids[0] != 9 || g.untold != 1 {
		t.Fatalf("%+v", g)
	}
	for inventory, want := range map[string]int{`{"programs":[{"id":1,"type":8}]}`: 1, `{}`: 0} {
		host := recordedAnswers([]answer{{Key: "bpf inventory", Parts: [][]byte{[]byte(inventory)}}, {Key: "cgroup 9", Parts: [][]byte{[]byte(`{"path":"/x"}`)}}}, native)
		ns := recordedAnswers([]answer{{Key: "qdiscs"}, {Key: "net ip_vs", Err: recordedError(unix.ENOENT)}}, native)
		if _, unread := readPrograms(ns, host, nil, g); len(unread) != want {
			t.Errorf("with %s: %v", inventory, unread)
		}
	}
}
