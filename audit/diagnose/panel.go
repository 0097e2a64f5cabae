package diagnose

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Panel is a hosting panel of the Baota / aaPanel family: it keeps a database of
// what it opened, and a front end (ufw, firewalld, or plain iptables) that it
// tells so. The kernel's rules may differ from both.
type Panel struct {
	Dir  string // where its signs were found
	Port uint16 // of the panel itself, 0 for not known
	// ports are the specifications that its database lists, with what it does.
	ports []panelPort
	// sources are client addresses, forwards ports that lead elsewhere, and
	// countries those whose clients it drops.
	sources   []panelSource
	forwards  []panelForward
	countries []string
	// Known tells whether the database could be read; Why says why not.
	Known bool
	Why   string
	// FrontEnd is what the panel tells its rules to, FrontOpens the ports that the
	// front end's own files open.
	FrontEnd   string
	frontOpens []string
}

type panelPort struct {
	spec string // 80, 39000-40000, 39000:40000, a,b
	drop bool
	from *panelSource // the clients it is about, nil for all
}

// panelSource is an address, a network (10.0.0.0/8) or a range (10.0.0.1-10.0.0.9).
type panelSource struct {
	low, high netip.Addr
	drop      bool
}

type panelForward struct {
	spec string // of the port that is forwarded
	to   string
}

// panelTables are the tables of the panel's database, older and newer, with what
// takes a row of each.
var panelTables = []struct {
	name string
	take func(p *Panel, row map[string]any)
}{
	{"firewall", (*Panel).takePort}, {"firewall_new", (*Panel).takePort},
	{"firewall_ip", (*Panel).takeSource}, {"firewall_trans", (*Panel).takeForward}, {"firewall_country", (*Panel).takeCountry},
}

// maxDatabase bounds what is read of the panel's database.
const maxDatabase = 64 << 20

// readPanel looks for the signs of Baota and aaPanel, nil for none.
func readPanel(root string) *Panel {
	const dir = "www/server/panel"
	if root == "" {
		root = "/"
	}
	if st, err := os.Lstat(filepath.Join(root, dir)); err != nil || !st.IsDir() {
		return nil
	}
	p := &Panel{Dir: "/" + dir}
	if b, err := readSmall(root, dir+"/data/port.pl"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 16); err == nil {
			p.Port = uint16(n)
		}
	}
	p.database(root, dir+"/data/default.db")
	p.frontEnd(root)
	return p
}

func (p *Panel) database(root, name string) {
	b, err := readWithin(root, name, maxDatabase)
	if err != nil {
		p.Why = "its database cannot be read: " + err.Error()
		return
	}
	// A journal that is left over means that the file itself may be half written.
	for _, log := range []struct{ suffix, what string }{{"-wal", "a write-ahead log"}, {"-journal", "a rollback journal"}} {
		if b, err := readSmall(root, name+log.suffix); err == nil && len(b) > 0 {
			p.Why = "its database has changes in " + log.what + ", which is not read"
			return
		}
	}
	tables := 0
	for _, table := range panelTables {
		rows, err := sqliteRows(b, table.name)
		if errors.Is(err, errNoTable) {
			continue
		}
		if err != nil {
			p.Why = fmt.Sprintf("its database: table %s: %v", table.name, err)
			return
		}
		tables++
		for _, row := range rows {
			table.take(p, row)
		}
	}
	if p.Known = tables > 0; !p.Known {
		p.Why = "its database has no table of opened ports"
	}
}

// columns are the texts of a row's columns, "" for none; numbers are written out.
func columns(row map[string]any, names ...string) []string {
	var out []string
	for _, name := range names {
		switch v := row[name].(type) {
		case string:
			out = append(out, v)
		case int64:
			out = append(out, strconv.FormatInt(v, 10))
		default:
			out = append(out, "")
		}
	}
	return out
}

func (p *Panel) takePort(row map[string]any) {
	c := columns(row, "port", "ports", "types", "address")
	for _, spec := range c[:2] {
		if spec == "" {
			continue
		}
		// The oldest table takes addresses of the black list among its ports.
		if s, ok := parseSource(spec); ok {
			p.sources = append(p.sources, panelSource{s.low, s.high, true})
			continue
		}
		x := panelPort{spec: spec, drop: c[2] == "drop"}
		if s, ok := parseSource(c[3]); ok {
			x.from = &s
		}
		p.ports = append(p.ports, x)
	}
}

func (p *Panel) takeSource(row map[string]any) {
	c := columns(row, "address", "types")
	if s, ok := parseSource(c[0]); ok {
		s.drop = c[1] == "drop"
		p.sources = append(p.sources, s)
	}
}

func (p *Panel) takeForward(row map[string]any) {
	c := columns(row, "start_port", "ended_ip", "ended_port", "protocol")
	if c[3] == "udp" || c[0] == "" {
		return
	}
	to := "port " + c[2]
	if c[1] != "" {
		to += " of " + c[1]
	}
	p.forwards = append(p.forwards, panelForward{c[0], to})
}

func (p *Panel) takeCountry(row map[string]any) {
	if c := columns(row, "country", "types"); c[1] == "drop" && c[0] != "" {
		p.countries = append(p.countries, c[0])
	}
}

// parseSource reads an address, a network or a range of addresses.
func parseSource(s string) (panelSource, bool) {
	s = strings.TrimSpace(s)
	if n, err := netip.ParsePrefix(s); err == nil {
		n = n.Masked()
		return panelSource{low: n.Addr(), high: lastOf(n)}, true
	}
	low, high, ranged := strings.Cut(s, "-")
	if !ranged {
		high = low
	}
	a, err := netip.ParseAddr(low)
	if err != nil {
		return panelSource{}, false
	}
	b, err := netip.ParseAddr(high)
	if err != nil || a.Is4() != b.Is4() || b.Less(a) {
		return panelSource{}, false
	}
	return panelSource{low: a, high: b}, true
}

// lastOf is the last address of a network.
func lastOf(n netip.Prefix) netip.Addr {
	b := n.Addr().AsSlice()
	for i := n.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (s *panelSource) holds(a netip.Addr) bool {
	return a.IsValid() && a.Is4() == s.low.Is4() && !a.Less(s.low) && !s.high.Less(a)
}

// Drops tells whether the panel's database drops a client whatever it dials.
func (p *Panel) Drops(client netip.Addr) bool {
	drops := false
	for i := range p.sources {
		if s := &p.sources[i]; s.holds(client) {
			if !s.drop {
				return false // an address that is let in is let in first
			}
			drops = true
		}
	}
	return drops
}

var (
	// ufwAllow are the lines by which ufw remembers its own rules (user.rules).
	ufwAllow = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?m)^### tuple ### (?:route:)?allow (?:tcp|any) (\S+) `)
	})
	// firewalldPort is an opened port of a zone (firewalld.zone(5)).
	firewalldPort = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`<port\b[^>]*>`) })
	portAttr      = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\bport="([^"]+)"`) })
)

// frontEnd finds what the panel drives: ufw where it is installed, else
// firewalld, else iptables itself.
func (p *Panel) frontEnd(root string) {
	has := func(name string) bool {
		_, err := os.Lstat(filepath.Join(root, name))
		return err == nil
	}
	switch {
	case has("usr/sbin/ufw"):
		p.FrontEnd = "ufw"
		b, _ := readSmall(root, "etc/ufw/user.rules")
		for _, m := range ufwAllow().FindAllStringSubmatch(string(b), -1) {
			p.frontOpens = append(p.frontOpens, m[1])
		}
	case has("usr/sbin/firewalld"):
		p.FrontEnd = "firewalld"
		for _, zone := range []string{"etc/firewalld/zones/public.xml", "usr/lib/firewalld/zones/public.xml"} {
			b, err := readSmall(root, zone)
			if err != nil {
				continue
			}
			for _, port := range firewalldPort().FindAllString(string(b), -1) {
				if m := portAttr().FindStringSubmatch(port); m != nil && strings.Contains(port, `protocol="tcp"`) {
					p.frontOpens = append(p.frontOpens, m[1])
				}
			}
			break
		}
	default:
		p.FrontEnd = "iptables"
	}
}

// Says tells what the panel's database says of a port for a client (invalid for
// any): opened, closed by a rule of the panel, or not mentioned.
func (p *Panel) Says(port uint16, client netip.Addr) (opens, drops bool) {
	for _, x := range p.ports {
		if !inPorts(x.spec, port) || x.from != nil && !x.from.holds(client) {
			continue
		}
		if x.drop {
			drops = true
		} else {
			opens = true
		}
	}
	return opens && !drops, drops
}

// FrontOpens tells whether the front end's own files open a port; known is false
// for plain iptables, which has none.
func (p *Panel) FrontOpens(port uint16) (opens, known bool) {
	for _, spec := range p.frontOpens {
		if inPorts(spec, port) {
			return true, true
		}
	}
	return false, p.FrontEnd != "iptables"
}

// words are the three views of a port side by side, for a client or for all.
func (p *Panel) words(port uint16, client netip.Addr) string {
	var s string
	opens, drops := p.Says(port, client)
	switch {
	case !p.Known:
		s = p.Why
	case drops:
		s = fmt.Sprintf("its database drops port %d", port)
	case opens:
		s = fmt.Sprintf("its database opens port %d", port)
	default:
		s = fmt.Sprintf("port %d is not in its database", port)
	}
	if p.Known {
		if p.Drops(client) {
			s += fmt.Sprintf("; the database drops the client's address %s", client)
		}
		for _, f := range p.forwards {
			if inPorts(f.spec, port) {
				s += fmt.Sprintf("; the database forwards it to %s", f.to)
				break
			}
		}
		if n := len(p.countries); n > 0 {
			s += "; the database drops clients of " + strings.Join(p.countries[:min(n, 5)], ", ")
			if n > 5 {
				s += fmt.Sprintf(" and %d more countries", n-5)
			}
		}
	}
	if opens, known := p.FrontOpens(port); known && opens {
		s += "; " + p.FrontEnd + "'s files open it"
	} else if known {
		s += "; " + p.FrontEnd + "'s files do not open it"
	}
	return s
}

// inPorts tells whether a specification (80, 39000-40000, 39000:40000, a,b) holds
// a port.
func inPorts(spec string, port uint16) bool {
	for part := range strings.SplitSeq(spec, ",") {
		low, high, ranged := strings.Cut(strings.ReplaceAll(strings.TrimSpace(part), ":", "-"), "-")
		a, err := strconv.ParseUint(low, 10, 16)
		if err != nil {
			continue
		}
		b := a
		if ranged {
			if b, err = strconv.ParseUint(high, 10, 16); err != nil {
				continue
			}
		}
		if uint64(port) >= a && uint64(port) <= b {
			return true
		}
	}
	return false
}
