package reach_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/audit/route"
	"github.com/hostaudit/hostaudit/firewall/ipset"
	"github.com/hostaudit/hostaudit/firewall/nft"
	"github.com/hostaudit/hostaudit/firewall/xtables"
	"github.com/hostaudit/hostaudit/listeners"
)

// readWorld reads namespaces of the laboratory as collect does, the first one
// as the audited one.
func readWorld(t testing.TB, spaces ...*lab.Namespace) *reach.World {
	t.Helper()
	w := &reach.World{}
	for i, n := range spaces {
		var ns *reach.Namespace
		var err error
		n.Do(func() { ns, err = readNamespace(t.Context()) })
		if err != nil {
			t.Fatalf("read namespace %s: %v", n.Name, err)
		}
		ns.ID = n.Inode()
		if i > 0 {
			ns.Name = n.Name
		}
		w.Namespaces = append(w.Namespaces, ns)
	}
	return w
}

func readNamespace(ctx context.Context) (*reach.Namespace, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	ns := &reach.Namespace{NoIPSec: true, Queues: map[uint16]bool{}, Peers: map[int]reach.Peer{}, Unread: map[string]string{}}
	src, err := nft.Open()
	if err != nil {
		return nil, err
	}
	defer src.Close()
	sets, err := readSets(ctx)
	if err != nil {
		return nil, err
	}
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	empty, err := xtables.RecentEmpty()
	if err != nil {
		return nil, err
	}
	sets = xtables.Beside{Sets: sets, Recent: xtables.Recents(empty)}
	opt := nft.Options{LinkNames: map[int]string{}, Sets: sets}
	for _, l := range links {
		opt.LinkNames[l.Index] = l.Name
	}
	if ns.Ruleset, err = nft.Read(ctx, src, opt); err != nil {
		return nil, err
	}
	kernel, err := xtables.Open()
	if err != nil {
		return nil, err
	}
	defer kernel.Close()
	tables, err := xtables.Read(ctx, kernel, sets)
	if err != nil {
		return nil, err
	}
	ns.Ruleset.Tables = append(ns.Ruleset.Tables, tables...)
	arp, err := xtables.ARPTables()
	if err != nil {
		return nil, err
	}
	if t := xtables.ARPTable(arp); t != nil {
		ns.Ruleset.Tables = append(ns.Ruleset.Tables, t)
	}
	capture, err := route.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	if ns.Route, err = route.Decode(capture); err != nil {
		return nil, err
	}
	live, err := listeners.OpenLive("")
	if err != nil {
		return nil, err
	}
	defer live.Close()
	ns.Listeners, err = listeners.Read(ctx, live)
	return ns, err
}

func readSets(ctx context.Context) (xtables.Sets, error) {
	k, err := ipset.Open()
	if errors.Is(err, ipset.ErrNotPresent) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer k.Close()
	sets, err := ipset.Read(ctx, k)
	if errors.Is(err, ipset.ErrNotPresent) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return sets, nil
}
