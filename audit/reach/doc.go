// Package reach tells who can reach a listening port, and which rule, address,
// route or setting decides. It is the only place where sockets, routes and
// rules meet.
//
// An [Evaluator] walks a class of packets (firewall.Class: a set of remote
// addresses and ports) the whole way: programs and ingress, prerouting, the
// routing decision, input or forward, the socket, and the answer's way back
// through output and postrouting — over veth pairs into other network
// namespaces of the host and back. Every end of a part of the class is a
// [final]; finals that overlap are the branches of something that a reading of
// the host cannot tell. What the client sees is their sum: where all branches
// end the same, the answer stands; otherwise it is "depends", with the
// conditions named.
//
// The modelled client is a Linux one: its TCP SYN is plain (no ECN, no data),
// its packets are whole, carry no extension headers, and come from an
// unprivileged port unless said otherwise.
package reach
