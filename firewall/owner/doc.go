// Package owner knows who manages a host's ruleset (ufw, firewalld,
// nftables.service, netfilter-persistent, iptables-services, nobody; Docker,
// Kubernetes, libvirt, CSF, panels) and how that manager opens a port, live and
// for good.
//
// It is pure: Detect judges a ruleset and a few files that the caller has read
// (Paths), Open gives steps as values. Nothing here runs a program or touches a
// file.
//
// What it refuses: rules of owners that rewrite them (Docker, Kubernetes,
// libvirt, CSF, panels) are never edited; the operator gets the words of that
// owner instead.
package owner
