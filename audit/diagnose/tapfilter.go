package diagnose

import "golang.org/x/sys/unix"

// step is one instruction of a packet filter; yes and no name the steps that a
// comparison goes on with, "" is the next one.
type step struct {
	label   string
	code    uint16
	k       uint32
	yes, no string
}

// tapFilter is the program of the kernel's packet filter
// (Documentation/networking/filter.rst) behind a tap; the data begin with the
// network header. It takes TCP segments with one of the flags, or datagrams, from
// or to the port; what comes from a followed port; ICMP and ICMPv6 errors; and
// IPv6 packets with extension headers, which the decoder looks through.
func tapFilter(want tapFor) []unix.SockFilter {
	const (
		byteAt   = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		halfAt   = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
		byteOver = unix.BPF_LD | unix.BPF_B | unix.BPF_IND
		halfOver = unix.BPF_LD | unix.BPF_H | unix.BPF_IND
		header   = unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH
		load     = unix.BPF_LDX | unix.BPF_IMM
		equal    = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		anyBit   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		end      = unix.BPF_RET | unix.BPF_K
		// protocol is SKF_AD_OFF + SKF_AD_PROTOCOL: the frame's.
		protocol = 0xfffff000
	)
	p := uint32(want.port)
	steps := []step{
		{code: halfAt, k: protocol},
		{code: equal, k: unix.ETH_P_IPV6, yes: "v6"},
		{code: equal, k: unix.ETH_P_IP, no: "drop"},
		{code: halfAt, k: 6},
		{code: anyBit, k: 0x1fff, yes: "drop"}, // a later fragment
		{code: header, k: 0},
		{code: byteAt, k: 9},
		{code: equal, k: unix.IPPROTO_ICMP, yes: "icmp"},
		{code: equal, k: uint32(want.proto), yes: "transport", no: "drop"},
		{label: "icmp", code: byteOver, k: 0},
		{code: equal, k: 3, yes: "take", no: "drop"}, // destination unreachable
		{label: "v6", code: byteAt, k: 6},
		{code: equal, k: uint32(want.proto), yes: "upper6"},
		{code: equal, k: unix.IPPROTO_ICMPV6, yes: "icmp6"},
		{code: equal, k: unix.IPPROTO_HOPOPTS, yes: "take"},
		{code: equal, k: unix.IPPROTO_ROUTING, yes: "take"},
		{code: equal, k: unix.IPPROTO_FRAGMENT, yes: "take"},
		{code: equal, k: unix.IPPROTO_DSTOPTS, yes: "take", no: "drop"},
		{label: "icmp6", code: byteAt, k: 40},
		{code: equal, k: 1, yes: "take", no: "drop"}, // destination unreachable
		{label: "upper6", code: load, k: 40},
	}
	// From here X is the length of the IP header.
	if want.proto == unix.IPPROTO_TCP {
		steps = append(steps,
			step{label: "transport", code: byteOver, k: 13},
			step{code: anyBit, k: uint32(want.flags), yes: "ports"},
			step{code: halfOver, k: 0})
		for _, f := range want.follow {
			steps = append(steps, step{code: equal, k: uint32(f), yes: "take"})
		}
		steps = append(steps, step{code: unix.BPF_RET | unix.BPF_K, k: 0}, step{label: "ports", code: halfOver, k: 0})
	} else {
		steps = append(steps, step{label: "transport", code: halfOver, k: 0})
	}
	steps = append(steps,
		step{code: equal, k: p, yes: "take"},
		step{code: halfOver, k: 2},
		step{code: equal, k: p, yes: "take"},
		step{label: "drop", code: end, k: 0},
		step{label: "take", code: end, k: 256})
	return assemble(steps)
}

// assemble turns names of steps into distances.
func assemble(steps []step) []unix.SockFilter {
	at := map[string]int{}
	for i, s := range steps {
		if s.label != "" {
			at[s.label] = i
		}
	}
	out := make([]unix.SockFilter, len(steps))
	for i, s := range steps {
		out[i] = unix.SockFilter{Code: s.code, K: s.k}
		if s.yes != "" {
			out[i].Jt = uint8(at[s.yes] - i - 1)
		}
		if s.no != "" {
			out[i].Jf = uint8(at[s.no] - i - 1)
		}
	}
	return out
}
