// Package listeners reads the sockets of a host: who listens where, which
// process owns each socket, how full the queues are, and how much of the
// ephemeral port space each destination uses.
//
// Reading and deciding are apart. A [Source] hands out bytes as the kernel gave
// them ([Live] from the running kernel, [Tape] from a recording); [Read] turns
// them into a [Table] and gives the same table for the same bytes. What is too
// large to keep as bytes is aggregated while it streams past ([Census],
// [Owners]) into plain values that can be stored.
//
// A fact that could not be read is a [Gap], never an empty list. All sockets
// and files are opened on the calling goroutine, so that a caller may have moved
// its thread into another network namespace ([WithNamespace]).
//
// The package knows nothing of firewalls and reachability.
package listeners
