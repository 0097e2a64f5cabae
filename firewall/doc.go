// Package firewall is one model of everything that netfilter can hold on a
// Linux host, and its evaluator.
//
// nf_tables, iptables in both back ends and ipset are lowered by the decoders
// in firewall/nft, firewall/xtables and firewall/ipset to the same types:
// tables, chains, rules, and statements (matches, rewrites, verdicts). What a
// decoder does not know becomes an [Opaque] statement, and an opaque statement
// makes an answer "depends"; it is never left out.
//
// The evaluator walks a class of packets ([Class]) through chains: a set of
// remote addresses and ports that no rule has told apart so far, with one
// concrete state of everything else. A match splits the class into yes, no and
// cannot-tell ([Parts]). A packet is a class of one; both are the same code.
//
// The package does no I/O and knows nothing else of this module. Routing is
// asked through [FIB].
package firewall
