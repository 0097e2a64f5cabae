package report

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// Bounds of the pictures: ways drawn for one port, questions asked for a page.
const (
	maxWays  = 12
	maxAsked = 2000
)

// way is the picture of the way of one part of the sources: from the client by an
// interface through the hooks to the socket, as far as it goes, and where the
// answer decides also back.
type way struct {
	From, Iif, Tone string
	Client          string // the one client whose way is drawn, "" for none
	Stations        []station
	End             string // what the client sees
	// More are conditions that a "depends" turns on.
	More []string
}

// station is one box of the picture.
type station struct {
	Title, Tone string
	Lines       []stationLine
}

// stationLine is one chain in a hook, or the socket.
type stationLine struct {
	Head, Text string
	Decides    bool
}

// artist draws the ways of one page.
type artist struct {
	ask   func(reach.Query) (reach.Answer, error)
	asked int
}

// ways draws the rows of a partition. Parts that the kernel refuses on that
// interface by itself are nobody's clients and are not drawn; more says how many
// others did not fit.
func (a *artist) ways(rows []reach.Row, q reach.Query, socket string) (all []way, more int) {
	drawn := slices.DeleteFunc(slices.Clone(rows), func(r reach.Row) bool {
		return r.DecidedBy.Kind == reach.ByRoute || r.DecidedBy.Kind == reach.ByRPFilter || len(drawable(r)) == 0
	})
	for _, r := range drawn[:min(len(drawn), maxWays)] {
		w := way{From: fromWords(rows, r), Iif: r.Iif, End: r.Words(), Tone: toneOf(r)}
		for _, c := range r.Conditions {
			w.More = append(w.More, condition(c))
		}
		q.Iif = r.Iif
		client, path := a.path(r, q)
		if client.IsValid() {
			w.Client = client.String()
		}
		w.Stations = stations(r, path, socket)
		all = append(all, w)
	}
	return all, len(drawn) - len(all)
}

// drawable are the clients of a row; by lo the host's own addresses come.
func drawable(r reach.Row) []netip.Prefix {
	if r.Iif == "lo" {
		return r.From
	}
	return audit.Clients(r.From)
}

// fromWords says in a few words whose way it is.
func fromWords(rows []reach.Row, r reach.Row) string {
	if r.Iif == "lo" {
		return "this host itself"
	}
	family := map[string]string{"ip": "IPv4", "ip6": "IPv6"}[r.Family]
	return sources(rows, r) + " (" + family + ")"
}

func toneOf(r reach.Row) string {
	switch {
	case r.Through():
		return "ok"
	case r.Unsure():
		return "unsure"
	}
	return "bad"
}

// publicClients stand for "anybody" where they are among the sources.
var publicClients = []netip.Addr{netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("2001:db8:ffff::5"), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}

// path asks for the way of one client of a row. A client whose answer is another
// than the row's is not drawn.
func (a *artist) path(r reach.Row, q reach.Query) (netip.Addr, []reach.Hop) {
	if a.ask == nil {
		return netip.Addr{}, nil
	}
	var clients []netip.Addr
	for _, c := range publicClients {
		if slices.ContainsFunc(r.From, func(p netip.Prefix) bool { return p.Contains(c) }) {
			clients = append(clients, c)
		}
	}
	for _, p := range drawable(r)[:min(len(drawable(r)), 2)] {
		c := p.Addr()
		if p.Bits() < c.BitLen()-1 {
			c = c.Next()
		}
		clients = append(clients, c)
	}
	for _, c := range clients {
		if a.asked++; a.asked > maxAsked {
			break
		}
		q.From = c
		ans, err := a.ask(q)
		if err == nil && ans.ClientSees == r.ClientSees && ans.AfterConnect == r.AfterConnect && ans.DecidedBy != nil && ans.DecidedBy.Kind == r.DecidedBy.Kind {
			return c, ans.Path
		}
	}
	return netip.Addr{}, nil
}

// stations are the boxes between the interface and what the client sees.
func stations(r reach.Row, path []reach.Hop, socket string) []station {
	var all []station
	decided := false
	add := func(title string, l stationLine) {
		decided = decided || l.Decides
		if n := len(all); n > 0 && all[n-1].Title == title {
			all[n-1].Lines = append(all[n-1].Lines, l)
		} else {
			all = append(all, station{Title: title, Lines: []stationLine{l}})
		}
		if l.Decides {
			all[len(all)-1].Tone = toneOf(r)
		}
	}
	there, back := split(path, r.Iif == "lo")
	for _, h := range there {
		add(hookWords(h, ""), hopLine(h, r.DecidedBy))
	}
	head, text := deciding(r.DecidedBy)
	own := stationLine{Head: head, Text: text, Decides: true}
	switch r.DecidedBy.Kind {
	case reach.ByNoListener, reach.ByBindAddress, reach.ByBacklog:
		add("socket", own)
		return all
	case reach.ByRule, reach.ByPolicy, reach.ByOpen:
		if (path == nil || len(r.Deciders) > 0) && head != "" {
			add("rules", own)
		}
	default:
		add(string(r.DecidedBy.Kind), own)
	}
	if r.ClientSees == reach.Connected || len(r.Deliveries()) > 0 {
		add("socket", stationLine{Head: socket})
		if r.AfterConnect != "" && !decided && head != "" {
			add("after the handshake", own)
		}
		// Whether the answer gets out is shown where it is what decides.
		for _, h := range back {
			if l := hopLine(h, r.DecidedBy); l.Decides && !decided {
				add(hookWords(h, "answer: "), l)
			}
		}
	}
	return all
}

// split parts the way there from the way back, which begins at the output hook; a
// client on this host begins there itself.
func split(path []reach.Hop, local bool) (there, back []reach.Hop) {
	i := 0
	for local && i < len(path) && path[i].Hook == "output" {
		i++
	}
	for ; i < len(path); i++ {
		if path[i].Hook == "output" {
			return path[:i], path[i:]
		}
	}
	return path, nil
}

func hookWords(h reach.Hop, prefix string) string {
	if h.Namespace != "" {
		return prefix + h.Hook + " in " + h.Namespace
	}
	return prefix + h.Hook
}

// hopLine is a chain that was passed, and whether the witness stands in it.
func hopLine(h reach.Hop, d reach.DecidedBy) stationLine {
	l := stationLine{Head: h.Chain + ": " + h.Verdict, Text: h.DecidedBy}
	chain := strings.Join(strings.Fields(d.Table+" "+d.Chain), " ")
	if d.Backend == "nftables" {
		chain = d.Family + " " + chain
	}
	if h.Chain == chain {
		switch d.Kind {
		case reach.ByRule:
			l.Decides = h.DecidedBy == fmt.Sprintf("#%d %s", d.Number, d.Text)
		case reach.ByPolicy:
			l.Decides = h.DecidedBy == "policy"
		}
	}
	return l
}
