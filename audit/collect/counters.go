package collect

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
)

// readCounters reads what the rules of the sysctl catalogue look at, under the
// names of sysctl.Counters: the groups of /proc/net, and sums over processors,
// devices and control groups. A source that this kernel or namespace does not
// have is left out, which the rules take for "not read".
func readCounters(ctx context.Context) (*listeners.Sample, listeners.Counters, []audit.Gap, error) {
	s, err := listeners.ReadSample(ctx, "")
	if err != nil {
		return nil, nil, nil, err
	}
	gaps := gapsOf(s)
	out := maps.Clone(s.Counters)
	if len(s.SoftNet) > 0 {
		var dropped, squeezed uint64
		for _, cpu := range s.SoftNet {
			dropped, squeezed = dropped+cpu.Dropped, squeezed+cpu.TimeSqueeze
		}
		out["softnet.dropped"], out["softnet.time_squeeze"] = dropped, squeezed
	}
	if s.Conntrack != nil {
		for _, name := range []string{"drop", "early_drop", "insert_failed", "invalid"} {
			if n, ok := s.Conntrack.Counters[name]; ok {
				out["conntrack."+name] = n
			}
		}
	}
	live := liveAnswers(false)
	for _, cache := range []string{"arp_cache", "ndisc_cache"} {
		// neigh_stat_seq_show; in the machine's first network namespace only.
		b, err := netFile(live, "stat/"+cache)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var columns listeners.Counters
		if err == nil {
			columns, err = listeners.ParseConntrackStat(b) // the same layout
		}
		if err != nil {
			gaps = append(gaps, audit.Gap{What: "counters: stat/" + cache, Why: err.Error()})
			continue
		}
		if n, ok := columns["table_fulls"]; ok { // since Linux 4.3
			out[cache+".table_fulls"] = n
		}
	}
	missed, err := rxMissed()
	if err != nil {
		gaps = append(gaps, audit.Gap{What: "counters of network devices", Why: err.Error()})
	} else {
		out["device.rx_missed_errors"] = missed
	}
	groups, err := readGroupEvents(cgroupMounts())
	if err != nil {
		gaps = append(gaps, audit.Gap{What: "events of control groups", Why: err.Error(), Minor: true})
	}
	maps.Copy(out, groups)
	return s, out, gaps, nil
}

func gapsOf(s *listeners.Sample) []audit.Gap {
	var gaps []audit.Gap
	for _, g := range s.Gaps {
		gaps = append(gaps, audit.Gap{What: g.What, Why: g.Why})
	}
	return gaps
}

// rxMissed sums what the network cards of the namespace received and had no
// buffer for (struct rtnl_link_stats64, rx_missed_errors). Devices that a kind
// names (veth, bridge, …) have no ring.
func rxMissed() (uint64, error) {
	messages, err := netlinkAsk(unix.NETLINK_ROUTE, unix.RTM_GETLINK, unix.NLM_F_DUMP, make([]byte, ifinfomsgLen))
	if err != nil {
		return 0, fmt.Errorf("read link statistics: %w", err)
	}
	var sum uint64
	for _, b := range messages {
		n, err := linkMissed(b, binary.NativeEndian)
		if err != nil {
			return 0, fmt.Errorf("read link statistics: %w", err)
		}
		sum += n
	}
	return sum, nil
}

// linkMissed reads one message of rtnl_fill_ifinfo.
func linkMissed(b []byte, order binary.ByteOrder) (uint64, error) {
	const rxMissedField = 15 // of struct rtnl_link_stats64
	if len(b) < ifinfomsgLen {
		return 0, errShortMessage
	}
	if order.Uint16(b[2:]) == unix.ARPHRD_LOOPBACK {
		return 0, nil
	}
	var missed uint64
	whole, virtual := true, false
	for typ, v := range attrs(b[ifinfomsgLen:], order, &whole) {
		switch {
		case typ == unix.IFLA_LINKINFO:
			for typ := range attrs(v, order, &whole) {
				virtual = virtual || typ == unix.IFLA_INFO_KIND
			}
		case typ == unix.IFLA_STATS64 && len(v) >= 8*(rxMissedField+1):
			missed = order.Uint64(v[8*rxMissedField:])
		}
	}
	switch {
	case !whole:
		return 0, errShortMessage
	case virtual:
		return 0, nil
	}
	return missed, nil
}
