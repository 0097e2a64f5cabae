// Package nft reads nf_tables from the kernel and lowers it to the model of
// package firewall.
//
// [Open] gives a [Source] of raw netlink messages, the only I/O of the
// package; [Recorder] and [Replay] stand in its place. [Read] asks a source
// for tables, chains, sets, objects, flowtables and rules and decodes the
// attributes of the kernel's own ABI (include/uapi/linux/netfilter/nf_tables.h).
//
// A rule of nf_tables is a program for sixteen four-byte registers. It is run
// symbolically: every register byte knows which byte of which field it holds
// and what was masked and xored, so that `payload; bitwise; cmp` becomes the
// same [firewall.Match] that `--dport` gives. What does not lift becomes a
// [firewall.Opaque] statement that names what the answer turns on; nothing is
// left out.
//
// Reading changes nothing but one thing: where nf_tables is a module that is
// not loaded, the kernel may load it when it is asked, as it does for every
// other reader. The module by itself hooks into nothing.
package nft
