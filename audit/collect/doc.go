// Package collect reads the host: it fills an [audit.Snapshot] and is the only
// place that asks the kernel or opens a file of the host for an audit.
//
// The readers (packages listeners, sysctl, route, nft, xtables, ipset) know how
// to ask and how to decode; this package knows when, in which network
// namespace, for how long, and what an operator has to be told where a reading
// failed. What has no reader elsewhere is read here: programs beside netfilter
// (XDP, tc, BPF on control groups, in netfilter hooks and in the socket lookup,
// IPVS, VRF), the other ends of veth links, NFQUEUE numbers and whether IPsec
// is in use.
//
// Every part has its own deadline and runs beside the others. A part that
// fails, or does not come back, is a gap with a reason and never an empty
// list: its field in the snapshot stays nil and reach.Namespace.Unread says
// why. A back end that the kernel does not have is no gap.
//
// [Host] reads the running machine, [Record] does the same and keeps the raw
// bytes, [Save] writes them to a file and [Load] runs the same decoders over
// such a file: the same answers offline.
package collect
