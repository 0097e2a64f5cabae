package route

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Capture is everything the routing of one network namespace is read from:
// netlink answers and small files of /proc, as they came. It is plain data for
// JSON.
type Capture struct {
	// BigEndian is the byte order of the machine it was taken on.
	BigEndian bool `json:"big_endian,omitempty"`
	// Blobs are the answers by name: "link", "addr", "route/ip", "rule/ip6",
	// "probe/local-routes", "sys/net/ipv4/conf/all/rp_filter", "net/fib_triestat".
	Blobs map[string]Blob `json:"blobs"`
}

// Blob is the bytes of one source, or the error that came instead.
type Blob struct {
	Data []byte `json:"data,omitempty"`
	// Err is the error's text, "" for none.
	Err string `json:"error,omitempty"`
	// Absent: the kernel does not have this thing (no such file, no such
	// family), which is an answer and no gap.
	Absent bool `json:"absent,omitempty"`
}

// Gap is a thing that could not be read.
type Gap struct{ What, Why string }

// The names of the netlink answers.
const (
	blobLinks    = "link"
	blobAddrs    = "addr"
	blobRoutes4  = "route/ip"
	blobRoutes6  = "route/ip6"
	blobRules4   = "rule/ip"
	blobRules6   = "rule/ip6"
	blobNeighs4  = "neigh/ip"
	blobNeighs6  = "neigh/ip6"
	blobNexthops = "nexthop"
	blobLabels   = "addrlabel"
	blobProbe    = "probe/local-routes"
	blobTrieStat = "net/fib_triestat"
	// blobRest has an error where the namespace changed while it was read.
	blobRest      = "at-rest"
	allForwarding = "sys/net/ipv6/conf/all/forwarding"
	osRelease     = "sys/kernel/osrelease"
)

// conf4All are the net.ipv4.conf.all keys that are combined with an interface's
// own (IN_DEV_ORCONF, IN_DEV_ANDCONF, IN_DEV_MAXCONF). The interfaces' own come
// with the links.
var conf4All = []string{
	"rp_filter", "accept_local", "route_localnet", "send_redirects", "src_valid_mark",
	"bc_forwarding", "ignore_routes_with_linkdown", "drop_unicast_in_l2_multicast",
}

// globals are the other keys the model or its callers need.
var globals = []string{
	"sys/net/ipv4/ip_forward",
	"sys/net/ipv4/fib_multipath_hash_policy",
	"sys/net/ipv4/fwmark_reflect",
	"sys/net/ipv4/tcp_fwmark_accept",
	"sys/net/ipv4/ip_nonlocal_bind",
	"sys/net/ipv6/ip_nonlocal_bind",
	"sys/net/ipv6/fwmark_reflect",
	"sys/net/ipv6/conf/all/disable_ipv6",
	"sys/net/ipv6/conf/all/drop_unicast_in_l2_multicast",
	tcpLoose,
}

// tcpLoose exists where conntrack does.
const tcpLoose = "sys/net/netfilter/nf_conntrack_tcp_loose"

// maxFile bounds the files that are read: all but fib_triestat hold one number.
const maxFile = 1 << 20

// attempts is how often a namespace that changes while it is read is read again.
const attempts = 4

// Acquire reads the routing of the network namespace the calling thread is in.
// Every descriptor is opened on the calling goroutine. What cannot be read
// stands in the capture with its error; Acquire itself fails only when the
// context has ended or no netlink socket can be had. A namespace whose links,
// addresses, routes or rules change meanwhile is read again, and when it never
// comes to rest the capture says so.
func Acquire(ctx context.Context) (*Capture, error) {
	s, err := openRTNetlink()
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	defer s.close()
	watch, err := openWatch()
	if err != nil {
		return nil, fmt.Errorf("watch the routing: %w", err)
	}
	defer watch.close()
	var last *Capture
	for range attempts {
		watch.changed() // what happened before does not matter
		c, err := acquire(ctx, s)
		if err != nil {
			return nil, err
		}
		c.Blobs[blobRest] = Blob{}
		if !watch.changed() {
			if err := c.probe(ctx, s); err != nil {
				return nil, err
			}
			return c, nil
		}
		c.Blobs[blobRest] = Blob{Err: "links, addresses, routes or rules changed while they were read"}
		last = c
	}
	if err := last.probe(ctx, s); err != nil {
		return nil, err
	}
	return last, nil
}

// acquire reads everything once.
func acquire(ctx context.Context, s *rtnetlink) (*Capture, error) {
	c := &Capture{BigEndian: binary.NativeEndian.Uint16([]byte{1, 0}) != 1, Blobs: map[string]Blob{}}
	for _, q := range []struct {
		name string
		typ  uint16
		body []byte
	}{
		{blobLinks, unix.RTM_GETLINK, linkQuery()},
		{blobAddrs, unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg)},
		{blobRoutes4, unix.RTM_GETROUTE, family(unix.AF_INET, unix.SizeofRtMsg)},
		{blobRoutes6, unix.RTM_GETROUTE, family(unix.AF_INET6, unix.SizeofRtMsg)},
		{blobRules4, unix.RTM_GETRULE, family(unix.AF_INET, sizeofRuleMsg)},
		{blobRules6, unix.RTM_GETRULE, family(unix.AF_INET6, sizeofRuleMsg)},
		{blobNeighs4, unix.RTM_GETNEIGH, family(unix.AF_INET, unix.SizeofNdMsg)},
		{blobNeighs6, unix.RTM_GETNEIGH, family(unix.AF_INET6, unix.SizeofNdMsg)},
		{blobNexthops, unix.RTM_GETNEXTHOP, make([]byte, sizeofNexthopMsg)},
		{blobLabels, unix.RTM_GETADDRLABEL, family(unix.AF_INET6, sizeofAddrLabelMsg)},
	} {
		data, err := s.dump(ctx, q.typ, q.body)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("read %s over rtnetlink: %w", q.name, ctx.Err())
		}
		c.Blobs[q.name] = blob(data, err)
	}
	names := []string{blobTrieStat, allForwarding, osRelease}
	names = append(names, globals...)
	for _, k := range conf4All {
		names = append(names, "sys/net/ipv4/conf/all/"+k)
	}
	for _, name := range names {
		data, err := readProc(name)
		c.Blobs[name] = blob(data, err)
	}
	return c, nil
}

// blob keeps an answer. A family or file the kernel does not have is absent.
func blob(data []byte, err error) Blob {
	switch {
	case err == nil:
		return Blob{Data: data}
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.EOPNOTSUPP),
		errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EPROTONOSUPPORT):
		return Blob{Err: err.Error(), Absent: true}
	default:
		return Blob{Err: err.Error()}
	}
}

// readProc reads a file of this thread's network namespace beneath /proc.
func readProc(name string) ([]byte, error) {
	path := "/proc/" + name
	if rest, ok := strings.CutPrefix(name, "net/"); ok {
		path = "/proc/thread-self/net/" + rest
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("read %s: more than %d bytes", path, maxFile)
	}
	return data, nil
}

// probe finds out what no dump tells: whether the kernel remembers that a local
// route was ever added by hand (net->ipv4.fib_has_custom_local_routes, never
// reset). Where it does, sources are checked by a route lookup even without a
// reverse-path filter. RTM_GETROUTE with an input interface runs the very
// function a packet would.
func (c *Capture) probe(ctx context.Context, s *rtnetlink) error {
	t, err := Decode(c)
	if err != nil {
		return nil //nolint:nilerr // Decode will say it again to whoever needs the answer.
	}
	q, ok := t.localRoutesProbe()
	if !ok {
		c.Blobs[blobProbe] = Blob{Absent: true, Err: "nothing to ask with"}
		return nil
	}
	data, err := s.request(ctx, unix.RTM_GETROUTE, q)
	if ctx.Err() != nil {
		return fmt.Errorf("ask for a route: %w", ctx.Err())
	}
	var errno unix.Errno
	switch {
	case err == nil:
		c.Blobs[blobProbe] = Blob{Data: data}
	case errors.As(err, &errno) && errno == unix.EINVAL:
		c.Blobs[blobProbe] = Blob{Data: []byte("EINVAL")}
	default:
		c.Blobs[blobProbe] = Blob{Err: err.Error()}
	}
	return nil
}

// number is the value of a one-number file, or what is wrong with it.
func (c *Capture) number(name string) (int64, string) {
	b, ok := c.Blobs[name]
	switch {
	case !ok:
		return 0, "not in the capture"
	case b.Err != "":
		return 0, b.Err
	}
	var n int64
	text := strings.TrimSpace(string(b.Data))
	if _, err := fmt.Sscanf(text, "%d", &n); err != nil || fmt.Sprint(n) != text {
		return 0, fmt.Sprintf("not a number: %.40q", text)
	}
	return n, ""
}

// sysctlName is the key of a /proc/sys file as sysctl prints it.
func sysctlName(file string) string {
	return strings.ReplaceAll(strings.TrimPrefix(file, "sys/"), "/", ".")
}

// confName is an interface's key as sysctl prints it: a dot in the interface's
// name is printed as a slash.
func confName(family, link, key string) string {
	return "net." + family + ".conf." + strings.ReplaceAll(link, ".", "/") + "." + key
}
