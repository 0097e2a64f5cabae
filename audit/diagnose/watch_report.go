package diagnose

import (
	"fmt"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// WatchSchema names the form of a WatchReport in JSON.
const WatchSchema = "hostaudit/watch/v1"

// Ending is where an attempt ended.
type Ending string

// The endings.
const (
	EndServed      Ending = "served"
	EndNotAccepted Ending = "not-accepted"   // the kernel completed it, no process took it
	EndDropped     Ending = "dropped"        // by a rule or policy of this host
	EndRejected    Ending = "rejected"       // by a rule, with RST or ICMP
	EndClosed      Ending = "closed-port"    // no socket: the kernel's RST, ICMP for datagrams
	EndQueueFull   Ending = "queue-full"     // the accept queue, a socket's buffer
	EndRPFilter    Ending = "rp-filter"      // the reverse path filter
	EndNoWayBack   Ending = "no-way-back"    // no route for the answer
	EndAnswerDrop  Ending = "answer-dropped" // the answer, by a rule of this host
	EndAnswerLost  Ending = "answer-lost"    // SYN-ACKs left, the client never acknowledged
	EndAckIgnored  Ending = "ack-ignored"    // its acknowledgement came and had no effect
	EndGaveUp      Ending = "client-reset"   // the client ended it before it was complete
	EndNoAnswer    Ending = "no-answer"      // a datagram reached its socket, nothing was sent
	EndConntrack   Ending = "conntrack-full"
	EndOtherVLAN   Ending = "other-vlan"  // tagged for a VLAN that no interface takes
	EndUnexplained Ending = "unexplained" // no answer, and nothing tells why
	EndUnderWay    Ending = "under-way"   // the watch ended first
)

// Sighting is one attempt and where it ended.
type Sighting struct {
	At        time.Time  `json:"at"`
	Proto     string     `json:"proto"`
	From      string     `json:"from"`
	To        string     `json:"to"`
	Interface audit.Text `json:"iif"`
	// VLAN is the 802.1Q id of the tag that it still carried on that interface.
	VLAN uint16 `json:"vlan,omitempty"`
	// SYN counts SYNs, or datagrams that came in; SYNACK counts SYN-ACKs, or
	// datagrams that went out.
	SYN    int    `json:"syn"`
	SYNACK int    `json:"syn_ack"`
	RST    int    `json:"rst"`
	ICMP   int    `json:"icmp"`
	Error  string `json:"icmp_error,omitempty"`
	// AnsweredIn is from the SYN to the SYN-ACK, AcceptedIn to when a process was
	// first seen to hold the connection; seconds, nil for neither seen.
	AnsweredIn *float64 `json:"answered_in"`
	AcceptedIn *float64 `json:"accepted_in"`
	Ended      Ending   `json:"ended"`
	// Cause is the id of the cause, "" where the client was served or none fits.
	Cause      ID                `json:"cause,omitempty"`
	Verdict    Verdict           `json:"verdict"`
	DecidedBy  *reach.DecidedBy  `json:"decided_by"`
	Conditions []reach.Condition `json:"conditions"`
	Process    *WatchProcess     `json:"process"`
	Listener   string            `json:"listener,omitempty"`
	Evidence   []audit.Evidence  `json:"evidence"`
	// Disagreement is where the packets and the model of the host's rules, routes
	// and sockets contradict each other; what was seen counts.
	Disagreement string `json:"disagreement,omitempty"`
	// Sentence says it in words.
	Sentence audit.Text `json:"sentence"`
	Remedy   string     `json:"remedy,omitempty"`

	taken bool // a process is sure to have had the connection
}

// WatchProcess names a process that serves.
type WatchProcess struct {
	PID  int        `json:"pid"`
	Name audit.Text `json:"name"`
	Unit audit.Text `json:"unit"`
}

// WatchGroup sums attempts up that ended at the same place.
type WatchGroup struct {
	Ended     Ending           `json:"ended"`
	Cause     ID               `json:"cause,omitempty"`
	DecidedBy *reach.DecidedBy `json:"decided_by"`
	Attempts  int              `json:"attempts"`
	// Clients counts different addresses, up to a bound of 1000.
	Clients int    `json:"clients"`
	Example string `json:"example"` // one client
	What    string `json:"what"`    // "dropped here by nftables inet filter input #7"
	Remedy  string `json:"remedy,omitempty"`

	clients map[string]bool
	verdict Verdict
}

// WatchReport is what a watch saw.
type WatchReport struct {
	Schema     string       `json:"schema"`
	Target     string       `json:"target"`
	Proto      string       `json:"proto"`
	From       string       `json:"from,omitempty"`
	Interfaces []audit.Text `json:"interfaces"`
	Began      time.Time    `json:"began"`
	Watched    float64      `json:"watched"` // seconds
	// Stopped: it was ended before its time.
	Stopped bool `json:"stopped"`
	// Attempts counts those of the watched clients; Sightings holds the first of
	// them, Groups sums all up that were followed. NotFollowed is the rest of a
	// flood.
	Attempts    int          `json:"attempts"`
	NotFollowed int          `json:"not_followed"`
	Sightings   []*Sighting  `json:"sightings"`
	Groups      []WatchGroup `json:"groups"`
	// Others counts packets of clients that From leaves out, Passing those for
	// other hosts that this one only forwards.
	Others  int `json:"other_clients"`
	Passing int `json:"passing"`
	// LostPackets had no room in the tap.
	LostPackets uint64   `json:"lost_packets"`
	HostWould   string   `json:"host_would"` // what this host would do with an attempt
	Notes       []string `json:"notes"`
	// Summary is the answer in one sentence, Remedy what to do about the most
	// frequent failure.
	Summary audit.Text `json:"summary"`
	// Cause is that of the most frequent failure, and how sure it is.
	Cause      ID          `json:"cause,omitempty"`
	Verdict    Verdict     `json:"verdict,omitempty"`
	Remedy     string      `json:"remedy,omitempty"`
	Incomplete []audit.Gap `json:"incomplete"`
}

// Failed counts attempts that were not served, those still under way left out.
func (r *WatchReport) Failed() int {
	n := 0
	for _, g := range r.Groups {
		if g.Ended != EndServed && g.Ended != EndUnderWay {
			n += g.Attempts
		}
	}
	return n
}

// witnessName names a witness in one line, without the rule's text.
func witnessName(d *reach.DecidedBy) string {
	if d == nil {
		return ""
	}
	of := ""
	if d.Namespace != "" {
		of = " in " + d.Namespace
	}
	switch d.Kind {
	case reach.ByRule:
		if d.Number == 0 {
			break
		}
		return placeName(d) + fmt.Sprintf(" #%d", d.Number) + of
	case reach.ByPolicy:
		if d.Chain == "" {
			break
		}
		return "the policy of " + placeName(d) + of
	}
	return d.Text + of
}

// placeName names a chain: tables of iptables have no name of their own in a family.
func placeName(d *reach.DecidedBy) string {
	if d.Backend == "nftables" {
		return fmt.Sprintf("%s %s %s %s", d.Backend, d.Family, d.Table, d.Chain)
	}
	backend := d.Backend
	if d.Family == "ip6" {
		backend += " (IPv6)"
	}
	return fmt.Sprintf("%s %s %s", backend, d.Table, d.Chain)
}
