// Package route is the model of one network namespace's routing, and the
// kernel's own lookup in it.
//
// [Acquire] reads the kernel over rtnetlink and /proc in the network namespace
// of the calling thread and returns a [Capture]: raw answers, which go through
// JSON unchanged. [Decode] turns a capture into a [Table]; it is pure, so that a
// saved capture answers on another machine. What could not be read is a [Gap],
// and an answer that would have needed it is Unknown.
//
// A [Table] answers for sets of addresses. Every answer is a partition of the
// set it was asked about: each address stands in exactly one part, with the
// verdict the kernel gives a packet from (or to) it and the witness, the route,
// routing rule or sysctl that decides. Looked up is as in
// net/core/fib_rules.c, net/ipv4/{route,fib_frontend,fib_trie}.c and
// net/ipv6/{route,fib6_rules,ip6_output}.c.
//
// Not modelled, and answered with Unknown where they could matter: VRF and
// other l3mdev domains, IPv6 source-specific routes (`from` in a route),
// multicast membership, tunnel-id rules, IPsec (a packet that came through it
// skips the reverse-path filter). A kernel built without
// CONFIG_IPV6_ROUTER_PREF chooses among dead IPv6 gateways in another way; no
// distribution ships one.
package route
