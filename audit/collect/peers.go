package collect

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/reach"
)

// other is a network namespace that may lie behind a link.
type other struct {
	inode uint64
	// open gives a descriptor of it; nil in a replay.
	open func() (fd int, done func(), err error)
}

// paired tells the links that come in pairs, each an end of the same wire.
func (l *linkFact) paired() bool { return (l.Kind == "veth" || l.Kind == "netkit") && l.Peer != 0 }

// readPeers finds the other end of every veth (and netkit) link: its index is
// IFLA_LINK, its namespace the one that IFLA_LINK_NETNSID names, the same one
// where that is missing. Addresses have no say: two containers' networks may
// hold the same. own is the namespace that links are of; others are asked in
// order for their id in it (RTM_GETNSID, net/core/net_namespace.c) until all
// ids are known. Links whose other end is in none of them have no peer.
func readPeers(a *answers, own uint64, links []linkFact, others []other) (map[int]reach.Peer, error) {
	peers := map[int]reach.Peer{}
	missing := map[int32]bool{}
	for _, l := range links {
		if !l.paired() {
			continue
		}
		if l.NSID >= 0 {
			missing[l.NSID] = true
		} else {
			peers[l.Index] = reach.Peer{Namespace: own, Link: l.Peer}
		}
	}
	var failed error
	found := map[int32]uint64{}
	for _, o := range others {
		if len(missing) == 0 {
			break
		}
		id, err := namespaceID(a, o)
		if err != nil {
			failed = fmt.Errorf("ask which network namespace lies behind a link: %w", err)
			continue
		}
		if missing[id] {
			delete(missing, id)
			found[id] = o.inode
		}
	}
	for _, l := range links {
		if inode, ok := found[l.NSID]; ok && l.NSID >= 0 && l.paired() {
			peers[l.Index] = reach.Peer{Namespace: inode, Link: l.Peer}
		}
	}
	if len(missing) == 0 {
		failed = nil
	}
	return peers, failed
}

// namespaceID gives the id that the calling thread's namespace has for another,
// -1 for none.
func namespaceID(a *answers, o other) (int32, error) {
	parts, err := a.get(fmt.Sprintf("nsid %d", o.inode), func() ([][]byte, error) {
		if o.open == nil {
			return nil, errors.New("no way to open it")
		}
		fd, done, err := o.open()
		if err != nil {
			return nil, err
		}
		defer done()
		const netnsaFD = 3 // NETNSA_FD
		return netlinkAsk(unix.NETLINK_ROUTE, unix.RTM_GETNSID, 0, attr(make([]byte, rtgenmsgLen), netnsaFD, native32(uint32(fd))))
	})
	if err != nil {
		return -1, err
	}
	for _, b := range parts {
		if id, ok := decodeNSID(b, a.order); ok {
			return id, nil
		}
	}
	return -1, errShortMessage
}

func decodeNSID(b []byte, order binary.ByteOrder) (int32, bool) {
	if len(b) < rtgenmsgLen {
		return -1, false
	}
	for typ, v := range attrs(b[rtgenmsgLen:], order, nil) {
		if typ == 1 && len(v) >= 4 { // NETNSA_NSID
			return int32(order.Uint32(v)), true
		}
	}
	return -1, false
}
