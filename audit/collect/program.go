package collect

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
)

// programReader reads what can decide beside netfilter in one namespace.
type programReader struct {
	ns   *answers // of the namespace
	host *answers // of the machine
	inv  *bpfInventory
	// invErr says why inv is nil.
	invErr error
	links  []linkFact
	names  map[int]string

	out    []reach.Program
	unread []error
}

// readPrograms gives the programs of a namespace and why others may be missing.
func readPrograms(ns, host *answers, links []linkFact, groups socketGroups) ([]reach.Program, []error) {
	r := &programReader{ns: ns, host: host, links: links, names: make(map[int]string, len(links))}
	for _, l := range links {
		r.names[l.Index] = l.Name
	}
	r.inv, r.invErr = readInventory(host)
	r.xdp()
	r.vrf()
	r.add(tcPrograms(ns, r.names))
	if r.mayHave(ebpf.SchedCLS) {
		r.tcx()
	}
	if r.mayHave(ebpf.SkLookup) {
		r.skLookup()
	}
	if r.mayHave(ebpf.Netfilter) {
		r.add(r.netfilter())
	}
	if r.mayHave(ebpf.CGroupSKB) || r.mayHave(ebpf.CGroupSockAddr) {
		r.add(cgroupPrograms(host, r.inv, groups.ids))
		if groups.untold > 0 {
			r.add(nil, fmt.Errorf("read programs of control groups: the kernel does not tell in which %d of the listeners were made", groups.untold))
		}
	}
	r.add(readIPVS(ns))
	return r.out, r.unread
}

// mayHave says whether a program of the type may exist on the machine.
func (r *programReader) mayHave(t ebpf.ProgramType) bool { return r.inv == nil || r.inv.has(t) }

func (r *programReader) add(found []reach.Program, err error) {
	r.out = append(r.out, found...)
	if err != nil {
		r.unread = append(r.unread, err)
	}
}

func (r *programReader) xdp() {
	for _, l := range r.links {
		for _, x := range l.XDP {
			place := l.Name
			if x.Mode != "" {
				place += " (" + x.Mode + ")"
			}
			r.out = append(r.out, reach.Program{Kind: "xdp", Name: r.inv.name(x.ID), ID: x.ID, Place: place, Link: l.Index, In: true})
		}
	}
}

// vrf names the links of a VRF: routes of another table decide for packets
// that come in by them, and sockets outside the VRF may not see them
// (net.ipv4.tcp_l3mdev_accept).
func (r *programReader) vrf() {
	for _, l := range r.links {
		if l.Kind != "vrf" {
			continue
		}
		r.out = append(r.out, reach.Program{Kind: "vrf", Name: l.Name, Place: l.Name, Link: l.Index, In: true, Out: true})
		for _, slave := range r.links {
			if slave.Master == l.Index {
				r.out = append(r.out, reach.Program{Kind: "vrf", Name: l.Name, Place: slave.Name + " in VRF " + l.Name, Link: slave.Index, In: true, Out: true})
			}
		}
	}
}

// tcx asks for programs attached to links the newer way (Linux 6.6), and for
// those of netkit devices.
func (r *programReader) tcx() {
	for _, l := range r.links {
		type place struct {
			attach ebpf.AttachType
			name   string
			in     bool
		}
		places := []place{{ebpf.AttachTCXIngress, "ingress", true}, {ebpf.AttachTCXEgress, "egress", false}}
		if l.Kind == "netkit" {
			// Primary runs on what this end sends, peer on what it receives.
			places = append(places, place{ebpf.AttachNetkitPrimary, "netkit egress", false}, place{ebpf.AttachNetkitPeer, "netkit ingress", true})
		}
		for _, p := range places {
			ids, err := queried(r.ns, fmt.Sprintf("bpf %s %d", p.name, l.Index), p.attach, func() (int, func(), error) { return l.Index, nil, nil })
			if errors.Is(err, unix.ENODEV) {
				continue // the link went away
			}
			if err != nil {
				r.unread = append(r.unread, fmt.Errorf("read tcx programs: %w", err))
				return // the same for every link
			}
			for _, id := range ids {
				r.out = append(r.out, reach.Program{Kind: "tc", Name: r.inv.name(id), ID: id, Place: l.Name + " " + p.name, Link: l.Index, In: p.in, Out: !p.in})
			}
		}
	}
}

func (r *programReader) skLookup() {
	ids, err := queried(r.ns, "bpf sk_lookup", ebpf.AttachSkLookup, func() (int, func(), error) {
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return 0, nil, err
		}
		return int(f.Fd()), func() { f.Close() }, nil
	})
	if err != nil {
		r.unread = append(r.unread, fmt.Errorf("read sk_lookup programs: %w", err))
		return
	}
	for _, id := range ids {
		r.out = append(r.out, reach.Program{Kind: "sk_lookup", Name: r.inv.name(id), ID: id, Place: "socket lookup", In: true})
	}
}

// hooksOfKernel translates NF_INET_* (include/uapi/linux/netfilter.h).
var hooksOfKernel = [...]firewall.Hook{firewall.Prerouting, firewall.Input, firewall.Forward, firewall.Output, firewall.Postrouting}

// families translates NFPROTO_*.
var families = map[uint32]firewall.Family{unix.NFPROTO_IPV4: firewall.IPv4, unix.NFPROTO_IPV6: firewall.IPv6}

// netfilter finds BPF programs in netfilter hooks. The hook dump of the
// namespace tells them (nfnetlink_hook, since Linux 6.4 with the programs).
// Without it the machine's links do, which do not say whose namespace they
// belong to: then every namespace may have them.
func (r *programReader) netfilter() ([]reach.Program, error) {
	var out []reach.Program
	dumped := true
	for _, family := range []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		for hook := range hooksOfKernel {
			parts, err := r.ns.get(fmt.Sprintf("netfilter hook %d %d", family, hook), func() ([][]byte, error) {
				const typ = unix.NFNL_SUBSYS_HOOK << 8 // NFNL_MSG_HOOK_GET is 0
				request := attr([]byte{family, unix.NFNETLINK_V0, 0, 0}, 1, big32(uint32(hook)))
				return netlinkAsk(unix.NETLINK_NETFILTER, typ, unix.NLM_F_DUMP, request)
			})
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
				dumped = false // the kernel has no nfnetlink_hook
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("read bpf programs in netfilter hooks: %w", err)
			}
			for _, b := range parts {
				id, ok, err := decodeHookProgram(b, r.ns.order)
				if err != nil {
					return nil, fmt.Errorf("read bpf programs in netfilter hooks: %w", err)
				}
				if ok {
					out = append(out, r.hookProgram(id, uint32(family), uint32(hook), ""))
				}
			}
		}
	}
	if dumped {
		return out, nil
	}
	if r.inv == nil {
		return nil, fmt.Errorf("read bpf programs in netfilter hooks: %w", r.invErr)
	}
	out = nil
	for _, l := range r.inv.Links {
		if families[l.Family] != 0 && int(l.Hook) < len(hooksOfKernel) {
			out = append(out, r.hookProgram(l.Program, l.Family, l.Hook, ", in this or another network namespace"))
		}
	}
	return out, nil
}

func (r *programReader) hookProgram(id, family, hook uint32, note string) reach.Program {
	h := hooksOfKernel[hook]
	return reach.Program{Kind: "netfilter", Name: r.inv.name(id), ID: id, Place: families[family].String() + " " + h.String() + note,
		Hook: h, Family: families[family], In: h != firewall.Output, Out: h == firewall.Output || h == firewall.Postrouting}
}

// decodeHookProgram reads a message of nfnl_hook_dump_one; ok is false for
// hooks that are no BPF program (include/uapi/linux/netfilter/nfnetlink_hook.h).
func decodeHookProgram(b []byte, order binary.ByteOrder) (id uint32, ok bool, err error) {
	if len(b) < 4 {
		return 0, false, errShortMessage
	}
	whole := true
	for typ, v := range attrs(b[4:], order, &whole) {
		if typ != 6 { // NFNLA_HOOK_CHAIN_INFO
			continue
		}
		var desc []byte
		for typ, v := range attrs(v, order, &whole) {
			switch {
			case typ == 1: // NFNLA_HOOK_INFO_DESC
				desc = v
			case typ == 2 && len(v) >= 4: // NFNLA_HOOK_INFO_TYPE: NFNL_HOOK_TYPE_BPF
				ok = binary.BigEndian.Uint32(v) == 2
			}
		}
		for typ, v := range attrs(desc, order, &whole) {
			if ok && typ == 1 && len(v) >= 4 { // NFNLA_HOOK_BPF_ID
				id = binary.BigEndian.Uint32(v)
			}
		}
	}
	if !whole {
		return 0, false, errShortMessage
	}
	return id, ok, nil
}

// readIPVS names the virtual services of IPVS, which takes packets to them at
// the hook input (net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_info_seq_show).
func readIPVS(a *answers) ([]reach.Program, error) {
	b, err := netFile(a, "ip_vs")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the kernel has no IPVS, or it is not loaded
	}
	if err != nil {
		return nil, fmt.Errorf("read the services of IPVS: %w", err)
	}
	var out []reach.Program
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		f := strings.Fields(sc.Text())
		if len(f) >= 3 && slices.Contains([]string{"TCP", "UDP", "SCTP", "FWM"}, f[0]) {
			out = append(out, reach.Program{Kind: "ipvs", Name: strings.Join(f[:3], " "), Place: "input", In: true})
		}
	}
	return out, nil
}
