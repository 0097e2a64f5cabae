package diagnose

import (
	"errors"
	"fmt"
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
}

// panelTables are the tables of ports in the panel's database, older and newer.
var panelTables = []string{"firewall", "firewall_new"}

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
	if wal, err := readSmall(root, name+"-wal"); err == nil && len(wal) > 0 {
		p.Why = "its database has changes in a write-ahead log, which is not read"
		return
	}
	tables := 0
	for _, table := range panelTables {
		rows, err := sqliteRows(b, table)
		if errors.Is(err, errNoTable) {
			continue
		}
		if err != nil {
			p.Why = fmt.Sprintf("its database: table %s: %v", table, err)
			return
		}
		tables++
		for _, row := range rows {
			types, _ := row["types"].(string)
			for _, column := range []string{"port", "ports"} {
				switch v := row[column].(type) {
				case string:
					p.ports = append(p.ports, panelPort{v, types == "drop"})
				case int64:
					p.ports = append(p.ports, panelPort{strconv.FormatInt(v, 10), types == "drop"})
				}
			}
		}
	}
	if p.Known = tables > 0; !p.Known {
		p.Why = "its database has no table of opened ports"
	}
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

// Says tells what the panel's database says of a port: opened, closed by a rule
// of the panel, or not mentioned.
func (p *Panel) Says(port uint16) (opens, drops bool) {
	for _, x := range p.ports {
		if !inPorts(x.spec, port) {
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

// words are the three views of a port side by side.
func (p *Panel) words(port uint16) string {
	var s string
	opens, drops := p.Says(port)
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
