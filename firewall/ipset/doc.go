// Package ipset reads the sets of the ipset subsystem from the kernel and
// lowers them to [firewall.IPSet].
//
// [Open] gives a [Source] of raw netlink messages, the only I/O of the package;
// [Read] asks it for everything (IPSET_CMD_LIST) and decodes it. Rules name sets
// by the kernel's index: kernels from 4.20 on (protocol 7) tell it in the list,
// older ones are asked set by set (SO_IP_SET, IP_SET_OP_GET_BYNAME).
//
// The subsystem is asked only where it is there already (/sys/module/ip_set):
// a request would make the kernel load the module.
package ipset
