// Package xtables reads iptables-legacy and ip6tables-legacy from the kernel
// and holds the one decoder of x_tables structs, which firewall/nft uses for
// the compat expressions of iptables-nft.
//
// [Open] gives a [Source], the only I/O of the package: the names of the tables
// that exist in the network namespace, and their entries as bytes
// (IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES). Asking the kernel for a table that
// does not exist creates it, so nothing is asked for that ip_tables_names does
// not list. [Read] asks a source for everything and decodes it.
//
// A rule of x_tables is a header ([Header]), matches and a target ([Ext]: name,
// revision, struct). [DecodeHeader], [DecodeMatch] and [DecodeTarget] lower them
// to the statements that nft rules get. What a struct asks that a reading of
// the host cannot tell becomes a [firewall.Opaque] that says so in an
// operator's words, and so does a module or revision that is not known here.
// [Spec] prints a rule as `iptables -S` does.
//
// Structs are those of 64-bit kernels in the byte order of the machine
// (include/uapi/linux/netfilter*); the 32-bit compat layouts are not known here.
package xtables
