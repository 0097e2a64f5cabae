package sysctl

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// Key is the canonical dotted name of a setting, as sysctl(8) prints it:
// "net.ipv4.tcp_tw_reuse". A dot inside a path component, as in the name of a
// VLAN interface, is written as a slash: "net.ipv4.conf.eth0/100.rp_filter".
type Key string

// KeyFromPath turns a path below /proc/sys ("net/ipv4/conf/eth0.100/rp_filter")
// into its Key. A leading "/proc/sys/" is dropped.
func KeyFromPath(path string) Key {
	path = strings.TrimPrefix(path, procSys)
	return Key(swapSeparators(strings.Trim(path, "/")))
}

// ParseKey turns a name in either spelling people use, dots or slashes, into
// its Key. As both loaders do, it lets the first separator decide which
// spelling it is (sysctl_normalize in systemd, slashdot in procps).
func ParseKey(s string) Key {
	return KeyFromPath(normalizeSeparators(strings.TrimPrefix(s, procSys)))
}

// Path is the key's file below /proc/sys, without a leading slash.
func (k Key) Path() string { return swapSeparators(string(k)) }

// procSys is the directory under which the kernel shows its settings.
const procSys = "/proc/sys/"

// swapSeparators exchanges dots and slashes; it is its own inverse.
func swapSeparators(s string) string {
	if !strings.ContainsAny(s, "./") {
		return s
	}
	// Byte by byte, not rune by rune: a name that is not UTF-8 must come out
	// with its other bytes untouched.
	var b strings.Builder
	b.Grow(len(s))
	for i := range len(s) {
		switch c := s[i]; c {
		case '.':
			b.WriteByte('/')
		case '/':
			b.WriteByte('.')
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// normalizeSeparators returns the slash form of a name whose first separator
// decides: a slash means the name is a path already, a dot means that dots and
// slashes change places.
func normalizeSeparators(s string) string {
	i := strings.IndexAny(s, "/.")
	if i >= 0 && s[i] == '.' {
		return swapSeparators(s)
	}
	return s
}

// writable is the pattern a key must have before this program writes it: plain
// components, so that no name can climb out of /proc/sys.
var writable = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9_]+([./][A-Za-z0-9_:-]+)+$`) })

// CheckWritable says whether this program is willing to write the key at all.
// It must look like a key and stand in the catalogue (or be a per-interface
// instance of an entry); everything else is refused, whatever the kernel would
// say, because a file on disk must never steer a write.
func (k Key) CheckWritable() error {
	if !writable().MatchString(string(k)) || strings.Contains(string(k), "..") {
		return fmt.Errorf("refuse to write %q: not a plain sysctl key", string(k))
	}
	e, ok := Find(k)
	if !ok {
		return fmt.Errorf("refuse to write %s: not in the catalogue", k)
	}
	if e.ReadOnly {
		return fmt.Errorf("refuse to write %s: this program never changes it", k)
	}
	return nil
}

// Interface returns the interface that a per-interface key belongs to, as in
// net.ipv4.conf.IFACE.x, net.ipv6.conf.IFACE.x and net.ipv4.neigh.IFACE.x.
// The pseudo interfaces "all" and "default" are returned like any other.
func (k Key) Interface() (string, bool) {
	head, iface, _, ok := k.perInterface()
	if !ok || !strings.HasPrefix(head, "net.ipv4.") && !strings.HasPrefix(head, "net.ipv6.") {
		return "", false
	}
	if strings.IndexByte(iface, '/') >= 0 {
		iface = swapSeparators(iface)
	}
	return iface, true
}

// perInterface cuts a key of five components, the third of them conf or neigh:
// "net.ipv4.conf." + "eth0/100" + ".rp_filter".
func (k Key) perInterface() (head, iface, tail string, ok bool) {
	s := string(k)
	if strings.Count(s, ".") != 4 {
		return "", "", "", false
	}
	tail = s[strings.LastIndexByte(s, '.'):]
	s = s[:len(s)-len(tail)]
	at := strings.LastIndexByte(s, '.') + 1
	head, iface = s[:at], s[at:]
	return head, iface, tail, strings.HasSuffix(head, ".conf.") || strings.HasSuffix(head, ".neigh.")
}

// WithInterface replaces the interface of a per-interface key or pattern.
// Keys of other kinds come back unchanged.
func (k Key) WithInterface(name string) Key {
	head, _, tail, ok := k.perInterface()
	if !ok {
		return k
	}
	return Key(strings.Trim(head+swapSeparators(name)+tail, "."))
}

// Routes reports whether a change of the setting moves packets in ways whose effect
// on every listener is not worked out: such are left to the operator.
func (k Key) Routes() bool {
	for _, part := range []string{".rp_filter", "forward", "accept_ra", "disable_ipv6", ".arp_", "route_localnet", "icmp_echo_ignore", "accept_local"} {
		if strings.Contains(string(k), part) {
			return true
		}
	}
	return false
}
