// Package sockdiag asks the kernel for its sockets over NETLINK_SOCK_DIAG and
// decodes the answers.
//
// Asking ([Conn]) and decoding ([NextMessage], [DecodeRecord]) are separate: a
// [Source] hands out datagrams as the kernel sent them, so they can be kept in
// a file and decoded again somewhere else with the same result.
//
// What the package refuses to do: it never reads a short or truncated answer
// as a complete one. A datagram larger than the receive buffer, a missing
// NLMSG_DONE, a DONE with a status and a record that does not parse are errors.
//
// Kernel sources: net/core/sock_diag.c, net/ipv4/inet_diag.c, tcp_diag.c,
// udp_diag.c, raw_diag.c, net/mptcp/mptcp_diag.c, net/sctp/diag.c; man 7 sock_diag.
package sockdiag
