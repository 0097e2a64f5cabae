package collect

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/reach"
)

// Handles and attributes of include/uapi/linux/pkt_sched.h and rtnetlink.h.
const (
	tcaKind    = 1
	tcaOptions = 2

	parentIngress = 0xFFFF0000 // of the ingress qdisc
	clsactIngress = 0xFFFFFFF2 // TC_H_MIN_INGRESS
	clsactEgress  = 0xFFFFFFF3 // TC_H_MIN_EGRESS
)

type qdiscFact struct {
	Link   int
	Handle uint32
	Kind   string
}

// readQdiscs dumps the queueing disciplines that somebody set up: those with a
// handle. The ones a device has by itself have none and no filters.
func readQdiscs(a *answers) ([]qdiscFact, error) {
	parts, err := a.get("qdiscs", func() ([][]byte, error) {
		return netlinkAsk(unix.NETLINK_ROUTE, unix.RTM_GETQDISC, unix.NLM_F_DUMP, make([]byte, tcmsgLen))
	})
	if err != nil {
		return nil, fmt.Errorf("read queueing disciplines: %w", err)
	}
	var out []qdiscFact
	for _, b := range parts {
		if len(b) < tcmsgLen {
			return nil, fmt.Errorf("read queueing disciplines: %w", errShortMessage)
		}
		q := qdiscFact{Link: int(int32(a.order.Uint32(b[4:]))), Handle: a.order.Uint32(b[8:])}
		whole := true
		for typ, v := range attrs(b[tcmsgLen:], a.order, &whole) {
			if typ == tcaKind {
				q.Kind = text(v)
			}
		}
		if !whole {
			return nil, fmt.Errorf("read queueing disciplines: %w", errShortMessage)
		}
		if q.Handle != 0 {
			out = append(out, q)
		}
	}
	return out, nil
}

// tcPrograms finds what tc can decide with on the links: filters that have an
// action or are programs, and disciplines that lose packets on purpose. Filters
// that only sort packets into classes decide nothing.
func tcPrograms(a *answers, names map[int]string) ([]reach.Program, error) {
	qdiscs, err := readQdiscs(a)
	if err != nil {
		return nil, err
	}
	var out []reach.Program
	for _, q := range qdiscs {
		switch q.Kind {
		case "netem", "plug", "blackhole":
			out = append(out, reach.Program{Kind: "tc", Name: q.Kind, Place: names[q.Link] + " egress", Link: q.Link, Out: true})
		}
		places := []struct {
			parent uint32
			in     bool
		}{{q.Handle, false}}
		switch q.Kind {
		case "ingress":
			places[0].parent, places[0].in = parentIngress, true
		case "clsact":
			places[0].parent, places[0].in = clsactIngress, true
			places = append(places, places[0])
			places[1].parent, places[1].in = clsactEgress, false
		}
		for _, p := range places {
			found, err := readFilters(a, q.Link, p.parent)
			if err != nil {
				return nil, fmt.Errorf("read tc filters of %s: %w", names[q.Link], err)
			}
			for _, f := range found {
				where := " egress"
				if p.in {
					where = " ingress"
				}
				out = append(out, reach.Program{Kind: "tc", Name: f.name, ID: f.id, Place: names[q.Link] + where, Link: q.Link, In: p.in, Out: !p.in})
			}
		}
	}
	return out, nil
}

type filterFact struct {
	name string
	id   uint32
}

// readFilters dumps the filters of one place (RTM_GETTFILTER).
func readFilters(a *answers, link int, parent uint32) ([]filterFact, error) {
	parts, err := a.get(fmt.Sprintf("tc filters %d %#x", link, parent), func() ([][]byte, error) {
		b := make([]byte, tcmsgLen)
		binary.NativeEndian.PutUint32(b[4:], uint32(link))
		binary.NativeEndian.PutUint32(b[12:], parent)
		return netlinkAsk(unix.NETLINK_ROUTE, unix.RTM_GETTFILTER, unix.NLM_F_DUMP, b)
	})
	if err != nil {
		return nil, err
	}
	var out []filterFact
	for _, b := range parts {
		f, decides, err := decodeFilter(b, a.order)
		if err != nil {
			return nil, err
		}
		if decides {
			out = append(out, f)
		}
	}
	return out, nil
}

// filterActions gives, for each classifier, the attributes of its options that
// hold an action or a policer (include/uapi/linux/pkt_cls.h).
var filterActions = map[string][]uint16{
	"u32":      {6, 7}, // TCA_U32_POLICE, TCA_U32_ACT
	"flower":   {3},    // TCA_FLOWER_ACT
	"matchall": {2},    // TCA_MATCHALL_ACT
	"basic":    {3, 4}, // TCA_BASIC_ACT, TCA_BASIC_POLICE
	"fw":       {2, 4}, // TCA_FW_POLICE, TCA_FW_ACT
	"route":    {5, 6}, // TCA_ROUTE4_POLICE, TCA_ROUTE4_ACT
	"flow":     {9, 10},
	"cgroup":   {1, 2},
	"bpf":      {1, 2}, // TCA_BPF_ACT, TCA_BPF_POLICE
}

// decodeFilter reads a message of tcf_fill_node (net/sched/cls_api.c). decides
// is false for the head of a list and for filters without an action.
func decodeFilter(b []byte, order binary.ByteOrder) (f filterFact, decides bool, err error) {
	if len(b) < tcmsgLen {
		return f, false, errShortMessage
	}
	var options []byte
	whole := true
	for typ, v := range attrs(b[tcmsgLen:], order, &whole) {
		switch typ {
		case tcaKind:
			f.name = text(v)
		case tcaOptions:
			options = v
		}
	}
	kind := f.name
	actions, known := filterActions[kind]
	decides = !known && options != nil
	for typ, v := range attrs(options, order, &whole) {
		for _, act := range actions {
			decides = decides || typ == act
		}
		if kind != "bpf" {
			continue
		}
		switch {
		case typ == 7: // TCA_BPF_NAME
			f.name = text(v)
		case typ == 8 && len(v) >= 4: // TCA_BPF_FLAGS: TCA_BPF_FLAG_ACT_DIRECT
			decides = decides || order.Uint32(v)&1 != 0
		case typ == 11 && len(v) >= 4: // TCA_BPF_ID
			f.id = order.Uint32(v)
		}
	}
	if !whole {
		return f, false, errShortMessage
	}
	return f, decides, nil
}
