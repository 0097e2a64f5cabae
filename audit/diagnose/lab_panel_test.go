package diagnose_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// panelTables are those of the panel, as its installer makes them.
const panelTables = "CREATE TABLE IF NOT EXISTS `firewall` (`id` INTEGER PRIMARY KEY AUTOINCREMENT, `port` TEXT, `ps` TEXT, `addtime` TEXT);\n" +
	"CREATE TABLE IF NOT EXISTS `firewall_new` (`id` INTEGER PRIMARY KEY AUTOINCREMENT, `protocol` TEXT DEFAULT '', `ports` TEXT, `types` TEXT, `address` TEXT DEFAULT '', `brief` TEXT DEFAULT '', `addtime` TEXT DEFAULT '');\n" +
	"CREATE TABLE IF NOT EXISTS `firewall_ip` (`id` INTEGER PRIMARY KEY AUTOINCREMENT, `types` TEXT, `address` TEXT DEFAULT '', `brief` TEXT DEFAULT '', `addtime` TEXT DEFAULT '');\n" +
	"CREATE TABLE IF NOT EXISTS `firewall_trans` (`id` INTEGER PRIMARY KEY AUTOINCREMENT, `start_port` TEXT, `ended_ip` TEXT, `ended_port` TEXT, `protocol` TEXT DEFAULT '', `addtime` TEXT DEFAULT '');\n" +
	"CREATE TABLE IF NOT EXISTS `firewall_country` (`id` INTEGER PRIMARY KEY AUTOINCREMENT, `types` TEXT, `country` TEXT DEFAULT '', `brief` TEXT DEFAULT '', `addtime` TEXT DEFAULT '');\n"

// panelFiles are the panel's in the server's root; the database is made by
// SQLite itself.
func panelFiles(t *testing.T, f *field, sql string) {
	t.Helper()
	write(t, f.serverRoot, "www/server/panel/data/port.pl", "8888\n")
	db := filepath.Join(f.serverRoot, "www/server/panel/data/default.db")
	_ = os.Remove(db)
	if _, err := f.server.Exec(t.Context(), panelTables+sql, "sqlite3", db); err != nil {
		t.Fatal(err)
	}
}

const (
	panelOpens = "INSERT INTO firewall (port, ps) VALUES ('22', ''), ('8888', 'panel'), ('39000-40000', 'ftp'), ('8080', 'chat');\n"
	panelLacks = "INSERT INTO firewall (port, ps) VALUES ('22', ''), ('8888', 'panel');\n"
	// panelChains are those that its firewall service keeps before everything else.
	panelChains = "*filter\n:IN_BT -\n:IN_BT_log -\n:IN_BT_user_ip -\n:IN_BT_ip -\n:IN_BT_user_port -\n:IN_BT_Country -\n-A INPUT -j IN_BT\n-A IN_BT -j IN_BT_log\n-A IN_BT -j IN_BT_user_ip\n" +
		"-A IN_BT -j IN_BT_ip\n-A IN_BT -j IN_BT_user_port\n-A IN_BT -j IN_BT_Country\n-A IN_BT_user_ip -m set --match-set in_bt_user_accept_ipset src -j ACCEPT\n" +
		"-A IN_BT_user_ip -m set --match-set in_bt_user_drop_ipset src -j DROP\n-A INPUT -p tcp -m state --state NEW -m tcp --dport 8080 -j ACCEPT\n"
	panelSets = "create in_bt_user_accept_ipset hash:net maxelem 100000 timeout 0\ncreate in_bt_user_drop_ipset hash:net maxelem 100000 timeout 0\n"
)

// TestPanel: the panel's own chains and database, against the kernel's rules.
func TestPanel(t *testing.T) {
	t.Parallel()
	lab.Need(t, "iptables-legacy", "ipset", "sqlite3")
	healthy := func(t *testing.T, f *field) {
		serves(t, f)
		panelFiles(t, f, panelOpens)
		f.server.Load(t, lab.IPSet, panelSets)
		f.server.Load(t, lab.IPTablesLegacy, panelChains+"COMMIT\n")
	}
	rule := func(r string) func(t *testing.T, f *field) {
		return func(t *testing.T, f *field) { f.server.Load(t, lab.IPTablesLegacy, panelChains+r+"\nCOMMIT\n") }
	}
	for _, c := range []case_{
		{name: "the client's address is on its black list", make: func(t *testing.T, f *field) {
			f.server.Load(t, lab.IPSet, "add in_bt_user_drop_ipset 203.0.113.10 timeout 0\n")
		}},
		{name: "its rule for the port", make: rule("-A IN_BT_user_port -p tcp --dport 8080 -j DROP")},
		{name: "its rule for a country", make: rule("-A IN_BT_Country -p tcp -s 203.0.113.0/24 -j DROP")},
	} {
		c.target, c.healthy, c.want = target, healthy, everywhere(diagnose.PanelFirewall, diagnose.Timeout)
		c.prove(t)
	}
	const closed = "*filter\n:INPUT DROP\n-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -p tcp -m state --state NEW -m tcp --dport 8888 -j ACCEPT\nCOMMIT\n"
	likely := everywhere(diagnose.PanelFirewall, diagnose.Timeout)
	likely[onServer] = perhaps(diagnose.PanelFirewall, diagnose.Timeout)
	delete(likely, withBoth) // a snapshot does not hold the panel's files
	case_{
		name: "the port is not in its database", target: target, healthy: healthy, want: likely,
		make: func(t *testing.T, f *field) {
			panelFiles(t, f, panelLacks)
			f.server.Load(t, lab.IPTablesLegacy, closed)
		},
	}.prove(t)
	for _, c := range []struct{ name, sql, file, text, word string }{
		{"open in its database, dropped by somebody else's rule", panelOpens, "", "", "its database opens port 8080"},
		{"and in ufw", panelOpens, "etc/ufw/user.rules", "*filter\n### tuple ### allow tcp 8080 0.0.0.0/0 any 0.0.0.0/0 in\nCOMMIT\n", "ufw's files open it"},
		{"and not in ufw", panelOpens, "etc/ufw/user.rules", "*filter\n### tuple ### allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 in\nCOMMIT\n", "ufw's files do not open it"},
		{"and in firewalld", panelOpens, "etc/firewalld/zones/public.xml", `<zone><port port="8000-8100" protocol="tcp"/></zone>`, "firewalld's files open it"},
		{"and not in firewalld", panelOpens, "etc/firewalld/zones/public.xml", `<zone><port port="8080" protocol="udp"/></zone>`, "firewalld's files do not open it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newField(t)
			serves(t, f)
			panelFiles(t, f, c.sql)
			if c.file != "" {
				name := "ufw"
				if strings.Contains(c.file, "firewalld") {
					name = "firewalld"
				}
				write(t, f.serverRoot, "usr/sbin/"+name, "")
				write(t, f.serverRoot, c.file, c.text)
			}
			r := f.ask(t, onServer, target, diagnose.Options{})
			clear_(t, r, onServer)
			if s := flat(t, r); !strings.Contains(s, c.word) {
				t.Errorf("no %q in\n%s", c.word, text(t, r))
			}
			f.server.Load(t, lab.NFT, "table inet mine { chain i { type filter hook input priority 0; tcp dport 8080 drop; }; }")
			r = f.ask(t, onServer, target, diagnose.Options{})
			blames(t, r, onServer, diagnose.HostFirewall, diagnose.Confirmed)
			if s := flat(t, r); !strings.Contains(s, c.word) {
				t.Errorf("no %q in\n%s", c.word, text(t, r))
			}
			keep(t, "server", r)
		})
	}
	t.Run("newer tables, and drops", func(t *testing.T) {
		f := newField(t)
		serves(t, f)
		panelFiles(t, f, "INSERT INTO firewall_new (protocol, ports, types) VALUES ('tcp', '8000-9000', 'accept'), ('tcp', '8080', 'drop');\n")
		f.server.Load(t, lab.IPTablesLegacy, closed)
		r := f.ask(t, onServer, target, diagnose.Options{})
		blames(t, r, onServer, diagnose.PanelFirewall, diagnose.Likely)
		if s := flat(t, r); !strings.Contains(s, "its database drops port 8080") {
			t.Errorf("%s", text(t, r))
		}
	})
	// Its black list without chains of its own: plain rules of iptables, which the
	// panel puts at the head of INPUT.
	const banned = "*filter\n-A INPUT -s 203.0.113.0/24 -j DROP\nCOMMIT\n"
	for name, address := range map[string]string{
		"an address": "203.0.113.10", "a network": "203.0.113.0/24", "a range": "203.0.113.1-203.0.113.100", "another address": "203.0.113.11",
		"a range of others": "203.0.113.11-203.0.113.100", "let in as well": "203.0.113.10,accept",
	} {
		t.Run("newer tables, the black list: "+name, func(t *testing.T) {
			t.Parallel()
			f := newField(t)
			serves(t, f)
			address, kind, _ := strings.Cut(address, ",")
			list := "INSERT INTO firewall_ip (types, address) VALUES ('drop', '" + address + "');\n"
			if kind != "" {
				list += "INSERT INTO firewall_ip (types, address) VALUES ('accept', '203.0.113.0/24');\n"
			}
			panelFiles(t, f, panelOpens+list)
			r := f.ask(t, onServer, target, diagnose.Options{})
			clear_(t, r, onServer)
			f.server.Load(t, lab.IPTablesLegacy, banned)
			r = f.ask(t, onServer, target, diagnose.Options{})
			if kind != "" || strings.HasPrefix(address, "203.0.113.11") { // the rule is somebody else's
				blames(t, r, onServer, diagnose.HostFirewall, diagnose.Confirmed)
				return
			}
			blames(t, r, onServer, diagnose.PanelFirewall, diagnose.Likely)
			if s := flat(t, r); !strings.Contains(s, "drops the client's address 203.0.113.10") || !strings.Contains(s, "black list") {
				t.Errorf("the black list is not named:\n%s", text(t, r))
			}
			keep(t, "server", r)
		})
	}
	t.Run("newer tables, a port for some clients", func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		serves(t, f)
		panelFiles(t, f, "INSERT INTO firewall_new (protocol, ports, types, address) VALUES ('tcp', '8080', 'accept', '192.0.2.0/24');\n")
		clear_(t, f.ask(t, onServer, target, diagnose.Options{}), onServer)
		f.server.Load(t, lab.IPTablesLegacy, closed)
		r := f.ask(t, onServer, target, diagnose.Options{})
		blames(t, r, onServer, diagnose.PanelFirewall, diagnose.Likely)
		panelFiles(t, f, "INSERT INTO firewall_new (protocol, ports, types, address) VALUES ('tcp', '8080', 'accept', '203.0.113.0/24');\n")
		r = f.ask(t, onServer, target, diagnose.Options{})
		blames(t, r, onServer, diagnose.HostFirewall, diagnose.Confirmed)
	})
	t.Run("newer tables, forwards and countries", func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		serves(t, f)
		f.listen(t, f.server, "0.0.0.0:9090")
		panelFiles(t, f, panelOpens+"INSERT INTO firewall_trans (start_port, ended_ip, ended_port, protocol) VALUES ('8080', '', '9090', 'tcp');\n"+
			"INSERT INTO firewall_country (types, country) VALUES ('drop', 'Atlantis'), ('accept', 'Utopia');\n")
		const forward = "*nat\n-A PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 9090\nCOMMIT\n"
		f.server.Load(t, lab.IPTablesLegacy, forward)
		clear_(t, f.ask(t, onServer, target, diagnose.Options{}), onServer)
		f.server.Load(t, lab.IPSet, panelSets)
		f.server.Load(t, lab.IPTablesLegacy, panelChains+"-A IN_BT_Country -p tcp -s 203.0.113.0/24 -j DROP\nCOMMIT\n")
		r := f.ask(t, onServer, target, diagnose.Options{})
		blames(t, r, onServer, diagnose.PanelFirewall, diagnose.Confirmed)
		if s := flat(t, r); !strings.Contains(s, "forwards it to port 9090") || !strings.Contains(s, "drops clients of Atlantis") || strings.Contains(s, "Utopia") {
			t.Errorf("forward or country is not named:\n%s", text(t, r))
		}
		keep(t, "server", r)
	})
	t.Run("a database that cannot be read", func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		serves(t, f)
		const name = "www/server/panel/data/default.db"
		panelFiles(t, f, panelOpens)
		whole, err := os.ReadFile(filepath.Join(f.serverRoot, name))
		if err != nil {
			t.Fatal(err)
		}
		f.server.Load(t, lab.IPTablesLegacy, closed)
		r := f.ask(t, onServer, target, diagnose.Options{})
		if s := flat(t, r); !strings.Contains(s, "its database opens port 8080") {
			t.Fatalf("the whole database is not read:\n%s", text(t, r))
		}
		scribbled := bytes.Clone(whole)
		for i := 4096; i < len(scribbled); i++ { // every page but the first
			scribbled[i] = 0xa5
		}
		for text_, word := range map[string]string{
			"": "damaged", "SQLite format 3\x00garbage": "damaged", string(whole[:len(whole)/2]): "damaged", string(whole[:4096]): "damaged", string(scribbled): "damaged",
			"<html>not a database</html>": "damaged",
		} {
			write(t, f.serverRoot, name, text_)
			r := f.ask(t, onServer, target, diagnose.Options{})
			blames(t, r, onServer, diagnose.HostFirewall, diagnose.Confirmed)
			if s := flat(t, r); !strings.Contains(s, word) || strings.Contains(s, "opens port") || strings.Contains(s, "is not in its database") {
				t.Errorf("%d bytes: no %q in\n%s", len(text_), word, text(t, r))
			}
		}
		write(t, f.serverRoot, name, string(whole))
		for suffix, word := range map[string]string{"-wal": "a write-ahead log", "-journal": "a rollback journal"} {
			write(t, f.serverRoot, name+suffix, "not over yet")
			r := f.ask(t, onServer, target, diagnose.Options{})
			blames(t, r, onServer, diagnose.HostFirewall, diagnose.Confirmed)
			if s := flat(t, r); !strings.Contains(s, word) {
				t.Errorf("no %q in\n%s", word, text(t, r))
			}
			if err := os.Remove(filepath.Join(f.serverRoot, name+suffix)); err != nil {
				t.Fatal(err)
			}
		}
	})
}
