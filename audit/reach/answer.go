package reach

import (
	"net/netip"

	"github.com/hostaudit/hostaudit/firewall"
)

// Sees is what the client sees.
type Sees string

// What a client can see.
const (
	Connected   Sees = "connected"
	Refused     Sees = "refused"     // RST, or ICMP port unreachable
	Unreachable Sees = "unreachable" // any other ICMP error
	Timeout     Sees = "timeout"
	Depends     Sees = "depends"
)

// Kind says what sort of thing decided.
type Kind string

// The kinds of witness.
const (
	ByRule        Kind = "rule"
	ByPolicy      Kind = "policy"
	ByNoListener  Kind = "no-listener"
	ByBindAddress Kind = "bind-address"
	ByRoute       Kind = "route"
	ByRPFilter    Kind = "rp-filter"
	BySysctl      Kind = "sysctl"
	ByBacklog     Kind = "backlog"
	ByProgram     Kind = "program"
	ByOpen        Kind = "open"
)

// DecidedBy is the witness of an answer. Rule and Chain point into the ruleset;
// the JSON fields are filled from them when the answer is shown.
type DecidedBy struct {
	Kind    Kind   `json:"kind"`
	Backend string `json:"backend,omitempty"`
	Family  string `json:"family,omitempty"`
	Table   string `json:"table,omitempty"`
	Chain   string `json:"chain,omitempty"`
	Number  int    `json:"number,omitempty"`
	Handle  uint64 `json:"handle"`
	Text    string `json:"text"`
	// Namespace is the network namespace of the thing, "" for the audited one.
	Namespace string `json:"netns,omitempty"`

	Rule *firewall.Rule `json:"-"`
}

// Condition is something an answer turns on.
type Condition struct {
	Backend string `json:"backend,omitempty"`
	Family  string `json:"family,omitempty"`
	Table   string `json:"table,omitempty"`
	Chain   string `json:"chain,omitempty"`
	Number  int    `json:"number,omitempty"`
	Handle  uint64 `json:"handle,omitempty"`
	Text    string `json:"text,omitempty"`
	// Object names what it is where it is no rule.
	Object    string `json:"object,omitempty"`
	TurnsOn   string `json:"turns_on"`
	Namespace string `json:"netns,omitempty"`
}

// QueryJSON is a query as the contract spells it.
type QueryJSON struct {
	Proto    string `json:"proto"`
	From     string `json:"from,omitempty"`
	FromPort uint16 `json:"from_port,omitempty"`
	To       string `json:"to,omitempty"`
	Port     uint16 `json:"port"`
	Iif      string `json:"iif,omitempty"`
}

// Hop is one base chain on the packet's path.
type Hop struct {
	Hook      string `json:"hook"`
	Chain     string `json:"chain"`
	Verdict   string `json:"verdict"`
	DecidedBy string `json:"decided_by"` // "policy", or the rule: "#4 …"
	Namespace string `json:"netns,omitempty"`
}

// Delivered is the socket a packet ends at.
type Delivered struct {
	NetNS    string `json:"netns"`
	Address  string `json:"address"`
	Port     uint16 `json:"port"`
	Listener string `json:"listener"`
}

// Answer is the answer about one client, or (with Partition) about all.
type Answer struct {
	ID         string    `json:"id,omitempty"`
	Query      QueryJSON `json:"query"`
	ClientSees Sees      `json:"client_sees,omitempty"`
	// AfterConnect is what the client meets once its connect has succeeded: ""
	// that it is served, Timeout that a rule (DecidedBy) drops its next packets,
	// so that it is connected to nothing, Depends that one may.
	AfterConnect Sees        `json:"after_connect,omitempty"`
	Conditions   []Condition `json:"conditions"`
	DecidedBy    *DecidedBy  `json:"decided_by,omitempty"`
	// Deciders are all that may decide, where that turns on the address dialled, the
	// client's port, or something that a reading cannot tell. DecidedBy stands for
	// them then, without a number or a handle of its own.
	Deciders    []DecidedBy `json:"decided_by_one_of,omitempty"`
	Path        []Hop       `json:"path,omitempty"`
	DeliveredTo *Delivered  `json:"delivered_to,omitempty"`
	// OneOf are the sockets a packet may end at, in place of DeliveredTo, where
	// something that a reading cannot tell chooses between them: a rule that
	// spreads connections by chance, the client's port.
	OneOf     []Delivered `json:"delivered_to_one_of,omitempty"`
	Partition []Row       `json:"partition,omitempty"`
	// Lines is the walk for --explain.
	Lines []Line `json:"-"`
}

// Row is a part of all sources that share one answer.
type Row struct {
	From       []netip.Prefix `json:"from"`
	Iif        string         `json:"iif"`
	Family     string         `json:"family"`
	ClientSees Sees           `json:"client_sees"`
	// AfterConnect is that of Answer.
	AfterConnect Sees      `json:"after_connect,omitempty"`
	DecidedBy    DecidedBy `json:"decided_by"`
	// Deciders are those of Answer; a mask that picks sources out bit by bit makes
	// several, too, each for some of them.
	Deciders   []DecidedBy `json:"decided_by_one_of,omitempty"`
	Conditions []Condition `json:"conditions"`
	Delivered  *Delivered  `json:"delivered_to,omitempty"`
	// OneOf is that of Answer.
	OneOf []Delivered `json:"delivered_to_one_of,omitempty"`

	aim netip.AddrPort // where destination NAT sent what is not delivered
}

// Deliveries are all the sockets that the sources' packets may end at.
func (r *Row) Deliveries() []Delivered { return deliveries(r.Delivered, r.OneOf) }

// Deliveries are all the sockets that the client's packets may end at.
func (a *Answer) Deliveries() []Delivered { return deliveries(a.DeliveredTo, a.OneOf) }

func deliveries(d *Delivered, oneOf []Delivered) []Delivered {
	if d != nil {
		return []Delivered{*d}
	}
	return oneOf
}

// Through reports whether the client surely gets through to the service.
func (a *Answer) Through() bool { return a.ClientSees == Connected && a.AfterConnect == "" }

// Through reports whether the sources surely get through to the service.
func (r *Row) Through() bool { return r.ClientSees == Connected && r.AfterConnect == "" }

// Unsure reports whether it cannot be told if the sources get through.
func (r *Row) Unsure() bool { return r.ClientSees == Depends || r.AfterConnect == Depends }

// Unsure reports whether it cannot be told if the client gets through.
func (a *Answer) Unsure() bool { return a.ClientSees == Depends || a.AfterConnect == Depends }

// Words says what a client sees: "timeout", "connected, then timeout".
func (r *Row) Words() string { return words(r.ClientSees, r.AfterConnect) }

// Words says what the client sees.
func (a *Answer) Words() string { return words(a.ClientSees, a.AfterConnect) }

func words(sees, after Sees) string {
	if after != "" {
		return string(sees) + ", then " + string(after)
	}
	return string(sees)
}

// Line is one line of the walk that --explain prints.
type Line struct {
	Namespace string
	Stage     string // ingress, raw, …, route, socket, output
	Chain     string
	Rule      *firewall.Rule // nil: a policy or a note
	Text      string
	Outcome   firewall.Outcome
	Why       string
	Decides   bool
}

// chainLabel names a base chain in a path: "raw PREROUTING", "inet filter input".
func chainLabel(ch *firewall.Chain) string {
	t := ch.Table
	if t.Backend == firewall.NFTables {
		return string(t.Family) + " " + t.Name + " " + ch.Name
	}
	return t.Name + " " + ch.Name
}

func decidedByRule(ns *Namespace, r *firewall.Rule) DecidedBy {
	t := r.Chain.Table
	return DecidedBy{Kind: ByRule, Backend: string(t.Backend), Family: string(t.Family), Table: t.Name, Chain: r.Chain.Name,
		Number: r.Number, Handle: r.Handle, Text: r.Text(), Namespace: ns.Name, Rule: r}
}

func decidedByPolicy(ns *Namespace, ch *firewall.Chain) DecidedBy {
	t := ch.Table
	text := "policy drop"
	if t.Backend != firewall.NFTables {
		text = "-P " + ch.Name + " DROP"
	}
	return DecidedBy{Kind: ByPolicy, Backend: string(t.Backend), Family: string(t.Family), Table: t.Name, Chain: ch.Name,
		Handle: ch.Handle, Text: text, Namespace: ns.Name}
}

func conditionOf(ns string, c firewall.Condition) Condition {
	if c.Rule == nil {
		return Condition{Object: c.Object, TurnsOn: c.Why, Namespace: ns}
	}
	t := c.Rule.Chain.Table
	return Condition{Backend: string(t.Backend), Family: string(t.Family), Table: t.Name, Chain: c.Rule.Chain.Name,
		Number: c.Rule.Number, Handle: c.Rule.Handle, Text: c.Rule.Text(), TurnsOn: c.Why, Namespace: ns}
}
