package report

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
	"github.com/hostaudit/hostaudit/sysctl"
)

// Text writes the report of a scan for people: the answer first and again last,
// who can connect, what to do, what could not be read.
func Text(w io.Writer, r *audit.Report, o Options) error {
	p := newPrinter(o)
	p.parts(dim, "  ", " · ", headline(r))
	p.blank()
	p.verdict(r, false)
	p.whoCanConnect(r)
	p.elsewhere(r)
	p.whatToDo(r)
	p.settings(r)
	p.profile(r)
	p.accepted(r)
	p.gaps(r.Incomplete)
	p.blank()
	p.verdict(r, true)
	return p.flush(w)
}

// headline says which host this is, in parts that stay together.
func headline(r *audit.Report) []string {
	h := r.Host
	parts := []string{string(h.Name)}
	if h.OS != "" {
		parts = append(parts, string(h.OS))
	}
	kernel, _, _ := strings.Cut(h.Kernel, "-")
	parts = append(parts, "kernel "+kernel, count(len(r.Listeners)-len(apart(r)), "listener", "listeners"))
	rules := count(h.Rules, "firewall rule", "firewall rules")
	if !h.RulesRead {
		rules = "firewall not read"
	} else if n := len(h.Backends); n > 1 {
		rules += fmt.Sprintf(" in %d back ends", n)
	}
	parts = append(parts, rules)
	if h.FirstNS != nil && !*h.FirstNS {
		parts = append(parts, "in a network namespace of its own")
	}
	if h.UID != 0 {
		parts = append(parts, "read without root")
	}
	parts = append(parts, fmt.Sprintf("%.2f s", h.Took))
	return slices.DeleteFunc(parts, func(s string) bool { return s == "" })
}

func (p *printer) verdict(r *audit.Report, last bool) {
	s := green
	switch {
	case r.Reaches(audit.Critical):
		s = red
	case r.Reaches(audit.Warning) || !r.Complete():
		s = yellow
	}
	text := r.Verdict
	if last && p.Exit >= 0 {
		text += "  exit " + strconv.Itoa(p.Exit)
	}
	p.text(s, "", "", text)
}

// line of the table: listeners that differ in nothing but the address are one.
type line struct {
	port, process, who string
	decides            []string
	mark               byte // x blocked, ! too open, ~ some, + everyone, . as it seems meant
	order              []int
}

func (p *printer) whoCanConnect(r *audit.Report) {
	p.heading("WHO CAN CONNECT")
	lines := tableLines(r)
	if len(lines) == 0 {
		p.raw("    nobody: nothing listens")
		return
	}
	rows := [][]cell{{plainCell(""), {dim, []string{"port"}}, {dim, []string{"process"}}, {dim, []string{"who"}}, {dim, []string{"what decides"}}}}
	for i, l := range lines {
		if i > 0 {
			l = l.after(&lines[i-1])
		}
		m, s := p.mark(l.mark)
		rows = append(rows, []cell{{s, []string{m}}, plainCell(l.port), plainCell(l.process), {s, []string{l.who}}, {normal, l.decides}})
	}
	// At 80 columns at least 20 are left for what decides; wider ones share.
	extra := max(p.Width-80, 0)
	p.table(" ", []int{2, 18 + extra/5, 14 + extra/4, 17 + extra/5, 0}, rows)
}

// apart are the listeners of namespaces that no link leads to.
func apart(r *audit.Report) []*audit.ListenerRow {
	var out []*audit.ListenerRow
	for i := range r.Listeners {
		if l := &r.Listeners[i]; l.Of != nil && l.Of.Apart {
			out = append(out, l)
		}
	}
	return out
}

// maxElsewhere is how many of those a screen shows; JSON has them all.
const maxElsewhere = 20

func (p *printer) elsewhere(r *audit.Report) {
	ls := apart(r)
	if len(ls) == 0 {
		return
	}
	p.heading("IN OTHER NETWORK NAMESPACES")
	p.text(dim, "    ", "    ", "no link leads there from here; started in one of them, hostaudit says who can connect")
	rows := [][]cell{}
	for _, l := range ls[:min(len(ls), maxElsewhere)] {
		rows = append(rows, []cell{plainCell(portWords(l, []string{l.Of.Listener.Local.Addr().String()})), plainCell(process(l))})
	}
	p.table("    ", []int{36 + max(p.Width-80, 0)/2, 0}, rows)
	if n := len(ls) - maxElsewhere; n > 0 {
		p.text(dim, "    ", "    ", fmt.Sprintf("and %s more (--format json lists them)", number(n)))
	}
}

// longWords is how long words are that are not said twice, one below the other.
const longWords = 40

// after is the line as it follows another that says the same at length: a list of
// networks that is kept from every port would fill the screen with itself.
func (l line) after(above *line) line {
	if l.who != above.who || l.mark != above.mark || !slices.Equal(l.decides, above.decides) {
		return l
	}
	if len(l.who) > longWords {
		l.who = "as above"
	}
	if len(strings.Join(l.decides, "")) > 2*longWords {
		l.decides = []string{"as above"}
	}
	return l
}

func (p *printer) mark(m byte) (string, style) {
	switch m {
	case 'x':
		return p.sign("✗", "x"), red
	case '!':
		return "!", red
	case '~':
		return "~", yellow
	case '+':
		return p.sign("✓", "+"), green
	default:
		return p.sign("·", "-"), dim
	}
}

func tableLines(r *audit.Report) []line {
	var out []line
	type group struct {
		key   string
		addrs []string
		at    int
	}
	groups := map[string]*group{}
	all := make([]line, len(r.Listeners))
	audit.ForEach(len(all), func(i int) {
		l := &r.Listeners[i]
		x := l.Of.Exposure
		all[i] = line{process: process(l), who: whoCan(x), decides: decides(x), mark: markOf(r, l.Of), order: []int{0, int(l.Port)}}
	})
	for i := range r.Listeners {
		l := &r.Listeners[i]
		if l.Of != nil && l.Of.Apart {
			continue
		}
		x, n := l.Of.Exposure, all[i]
		if l.Proto != string(listeners.TCP) && l.Proto != string(listeners.MPTCP) {
			n.order[0] = 1
		}
		switch note := l.Scope.Note; {
		case note == "":
		case l.Scope.Kind == listeners.ScopeAbsent, l.Device == "" && l.Of.Listener.Device.Index != 0:
			n.decides = []string{note} // that no packet arrives decides before any rule
		case x.Who != reach.Nobody && x.Who != reach.HostOnly || l.Device != "":
			n.decides = append(n.decides, note)
		}
		if len(n.decides) == 0 && l.Of.Listener.Local.Addr().Unmap().IsLoopback() {
			n.decides = []string{"listens on " + l.Address}
		}
		key := strings.Join(append([]string{l.Proto, fmt.Sprint(l.Port), string(l.NetNS), string(l.Device), n.process, n.who, string(n.mark)}, n.decides...), "\x00")
		g := groups[key]
		if g == nil {
			g = &group{key: key, at: len(out)}
			groups[key] = g
			out = append(out, n)
		}
		if a := l.Of.Listener.Local.Addr().String(); !slices.Contains(g.addrs, a) {
			g.addrs = append(g.addrs, a)
		}
		out[g.at].port = portWords(l, g.addrs)
	}
	for i := range r.Published {
		pub := &r.Published[i]
		to := pub.To.NetNS
		if pub.To.Address != "" {
			to = strings.TrimSpace(to + " " + hostPort(pub.To.Address, pub.To.Port))
		}
		n := line{port: fmt.Sprintf("%s %d → %s", pub.Proto, pub.Port, to), process: pub.To.Listener, who: whoCan(pub.Of.Exposure),
			decides: append(translatedBy(pub.By), decides(pub.Of.Exposure)...), mark: markOf(r, pub.Of), order: []int{0, int(pub.Port)}}
		if pub.To.NetNS != "" {
			n.process = "in " + pub.To.NetNS
		}
		out = append(out, n)
	}
	rank := func(m byte) int { return strings.IndexByte("x!~+.", m) }
	slices.SortStableFunc(out, func(a, b line) int {
		return cmp.Or(cmp.Compare(rank(a.mark), rank(b.mark)), slices.Compare(a.order, b.order))
	})
	return out
}

// portWords shows protocol, address and port; both wildcards together are the
// port alone.
func portWords(l *audit.ListenerRow, addrs []string) string {
	s := l.Proto + " "
	switch {
	case slices.Contains(addrs, "0.0.0.0") && slices.Contains(addrs, "::"), slices.Equal(addrs, []string{"::"}) && l.V6Only != nil && !*l.V6Only:
		s += strconv.Itoa(int(l.Port))
	default:
		var parts []string
		for _, a := range addrs[:min(len(addrs), maxListed)] {
			parts = append(parts, hostPort(a, l.Port))
		}
		s += strings.Join(parts, ", ")
		if n := len(addrs) - maxListed; n > 0 {
			s += " and " + number(n) + " more"
		}
	}
	if l.Device != "" {
		s += " on " + string(l.Device)
	}
	if l.NetNS != "" {
		s += " in " + string(l.NetNS)
	}
	return s
}

func hostPort(addr string, port uint16) string {
	if strings.Contains(addr, ":") {
		return fmt.Sprintf("[%s]:%d", addr, port)
	}
	return fmt.Sprintf("%s:%d", addr, port)
}

// process names the owner: "php chat.service, www-data, pid 901 +4".
func process(l *audit.ListenerRow) string {
	proc := l.Process
	if proc == nil {
		switch listeners.Unowned(l.Unowned) {
		case listeners.KernelSocket:
			return "no process seen with it: the kernel's, or in flight"
		case listeners.NoPrivilege:
			return fmt.Sprintf("not visible without more privilege (uid %d)", l.Of.Listener.UID)
		case listeners.OtherPIDNamespace:
			return "in another pid namespace"
		case listeners.Gone:
			return "gone meanwhile"
		default:
			return "not known"
		}
	}
	parts := []string{string(proc.Name)}
	if proc.Container != "" {
		parts[0] += " in container " + shortID(string(proc.Container))
	} else if proc.Unit != "" {
		parts[0] += " " + string(proc.Unit)
	}
	user := string(proc.User)
	if user == "" {
		user = fmt.Sprintf("uid %d", proc.UID)
	}
	pid := fmt.Sprintf("pid %d", proc.PID)
	if n := len(l.Processes) - 1; n > 0 {
		pid += fmt.Sprintf(" +%d", n)
	}
	return strings.Join(append(parts, user, pid), ", ")
}

// shortID cuts the id of a container, where its name is not known, as the runtimes do.
func shortID(s string) string {
	if len(s) == 64 && strings.Trim(s, "0123456789abcdef") == "" {
		return s[:12]
	}
	return s
}

// markOf judges a row by the findings about it.
func markOf(r *audit.Report, port *audit.Port) byte {
	subject := port.Subject()
	for _, f := range r.Counting() {
		if f.Subject != subject || !f.Severity.AtLeast(audit.Warning) {
			continue
		}
		if f.ID == "service.audience-exceeded" || f.ID == "listener.database-exposed" {
			return '!'
		}
		return 'x'
	}
	switch port.Exposure.Who {
	case reach.Everyone:
		return '+'
	case reach.Some, reach.Uncertain:
		return '~'
	}
	return '.'
}

func (p *printer) whatToDo(r *audit.Report) {
	var loud, quiet []audit.Finding
	for _, f := range r.Counting() {
		if f.Severity.AtLeast(audit.Warning) {
			loud = append(loud, f)
		} else {
			quiet = append(quiet, f)
		}
	}
	if len(loud) > 0 {
		p.heading("WHAT TO DO")
	}
	for i, f := range loud {
		s := yellow
		if f.Severity == audit.Critical {
			s = red
		}
		number := fmt.Sprintf("%2d  ", i+1)
		p.text(normal, number+p.paint(s, pad(string(f.Severity), 8))+"  ", strings.Repeat(" ", 14), f.Title)
		p.detail(f)
	}
	if len(quiet) > 0 {
		p.heading("WORTH KNOWING")
	}
	for i, f := range quiet {
		p.text(normal, fmt.Sprintf("%2d  ", len(loud)+i+1), "    ", f.Title)
		p.detail(f)
	}
}

func (p *printer) detail(f audit.Finding) {
	field := func(name, text string) {
		if text != "" {
			p.text(normal, "      "+p.paint(dim, pad(name, 5))+" ", "            ", text)
		}
	}
	for i, e := range f.Evidence {
		name := "seen"
		if i > 0 {
			name = ""
		}
		field(name, e.Source+": "+e.Value)
	}
	field("why", f.Why)
	field("do", f.Remedy)
	if e := f.Expired; e != nil {
		field("note", fmt.Sprintf("accepted until %s (%s), counts again", e.Until, e.Source))
	}
	p.text(dim, "            ", "            ", f.ID+" · "+f.Subject)
}

// shownKeys are always shown: what they mean decides about outgoing connections.
var shownKeys = []sysctl.Key{"net.ipv4.ip_local_port_range", "net.ipv4.tcp_tw_reuse"}

func (p *printer) settings(r *audit.Report) {
	first := true
	for _, k := range shownKeys {
		i := slices.IndexFunc(r.Sysctls, func(s audit.SysctlRow) bool { return s.Key == k })
		if i < 0 || r.Sysctls[i].Live == nil {
			continue
		}
		if first {
			p.heading("OUTGOING CONNECTIONS")
			first = false
		}
		s := r.Sysctls[i]
		p.text(normal, "    ", "      ", string(k)+" = "+*s.Live)
		advice := s.Why
		if s.Verdict == sysctl.OK {
			advice = "nothing on this host speaks for another value"
		}
		p.text(normal, "      ", "      ", meaning(r, s)+"; "+advice)
	}
	if first {
		return
	}
	p.headRoom(r)
}

// meaning says in the operator's words what the value does.
func meaning(r *audit.Report, s audit.SysctlRow) string {
	switch s.Key {
	case "net.ipv4.ip_local_port_range":
		if r.Ephemeral != nil {
			return number(r.Ephemeral.Usable) + " ports for connections to each destination address and port"
		}
		return "the ports for connections to each destination address and port"
	default:
		switch *s.Live {
		case "0":
			return "no port is taken over from TIME_WAIT"
		case "1":
			return "outgoing connections take over ports from TIME_WAIT; it does nothing for clients of this host"
		default:
			return "outgoing connections over loopback take over ports from TIME_WAIT"
		}
	}
}

func (p *printer) accepted(r *audit.Report) {
	first := true
	head := func() {
		if first {
			p.heading("ACCEPTED")
			first = false
		}
	}
	for _, f := range r.Findings {
		if a := f.Accepted; a != nil {
			head()
			until := ""
			if a.Until != "" {
				until = ", until " + a.Until
			}
			p.text(normal, "    ", "      ", fmt.Sprintf("%s · %s: %s (%s%s)", f.ID, f.Subject, a.Reason, a.Source, until))
		}
	}
	for _, i := range r.IdleAccepts {
		head()
		p.text(dim, "    ", "      ", fmt.Sprintf("%s · %s does not occur; the entry can go (%s)", i.ID, i.Subject, i.Source))
	}
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + many
}

// number groups thousands.
func number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// percent rounds down, so that nothing reads as a bound that it has not reached.
func percent(share float64) string { return fmt.Sprintf("%.0f %%", math.Floor(share*100+1e-9)) }
