package collect

import (
	"net/netip"
	"time"
)

// Options say what to read and how. The zero value reads everything of the
// running host and takes two samples of the counters a second apart.
type Options struct {
	// Root is where configuration files of the host lie ("" is /): sysctl files,
	// passwd, os-release. What the kernel says stays the kernel's.
	Root string
	// Sample is the time between the two readings of the counters, 0 means one
	// second. The rest of the reading happens in between.
	Sample time.Duration
	// Quick takes no samples, so that nothing is waited for.
	Quick bool
	// NoCensus leaves out the count of local ports in use, which walks all
	// sockets of the host.
	NoCensus bool
	// BoundFrom is the share of the local ports in use by one source address from
	// which sockets bound by number are looked for, which takes a second walk; 0
	// means a quarter.
	BoundFrom float64
	// Ask are addresses that a query will be about: they are looked up in sets
	// that are too large to be read whole.
	Ask []netip.Addr
	// SysctlFiles are further files to read as `sysctl -p FILE` would.
	SysctlFiles []string
	// Tool is the version of hostaudit, for Meta.
	Tool string
	// Progress is told the name of each part as it begins, from several
	// goroutines at once. May be nil.
	Progress func(part string)
	// Limit is the deadline of one part, 0 means 30 seconds.
	Limit time.Duration
	// MaxNamespaces bounds how many other network namespaces are read, 0 means
	// 512.
	MaxNamespaces int
}

func (o Options) withDefaults() Options {
	if o.Root == "" {
		o.Root = "/"
	}
	if o.Sample <= 0 {
		o.Sample = time.Second
	}
	if o.BoundFrom <= 0 {
		o.BoundFrom = 0.25
	}
	if o.Limit <= 0 {
		o.Limit = 30 * time.Second
	}
	if o.MaxNamespaces <= 0 {
		o.MaxNamespaces = 512
	}
	return o
}
