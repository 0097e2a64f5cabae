// Package diagnose says why a client cannot use a service: it turns what was
// seen of one target (names, connections tried, packets, the hosts' snapshots,
// the client's own message) into ranked causes with evidence and remedy, and it
// watches real connection attempts arrive.
//
// Acquiring and judging are apart. The functions that take a context (Resolve,
// Connect, Probe, ReadHost, Metadata, Tap) read or send, each with a deadline,
// and give plain values; Judge and Conclude are pure functions of those values.
// All sockets are opened on the calling goroutine, so that a caller may have
// moved its thread into another network namespace.
//
// The rules of judgement: every cause is named in every answer; "confirmed"
// needs direct evidence; what only the other side can decide is "likely" at
// most; "ruled out" needs positive evidence; a connection from a host to its own
// address travels over lo and says nothing about clients; a root cause stands
// before its symptoms.
//
// Nothing here changes the host. Bytes of a protocol are sent only by Probe, and
// the cloud's metadata service is asked only by Metadata.
package diagnose
