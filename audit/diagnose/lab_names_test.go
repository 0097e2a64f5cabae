package diagnose_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

const named = "tcp://chat.example.com:8080"

// servesNamed is a healthy host with a name, and a name server at the client's
// router.
func servesNamed(value string) (*zone, func(t *testing.T, f *field)) {
	z := &zone{names: map[string]string{"chat.example.com": value}}
	return z, func(t *testing.T, f *field) {
		serves(t, f)
		z.serve(t, f.router, "203.0.113.1:53")
	}
}

// nameless is a name that does not resolve, which is the same from everywhere.
func nameless(sure func(diagnose.ID, diagnose.Sees) want) map[place]want {
	w := sure(diagnose.NameUnknown, diagnose.NoName)
	return map[place]want{onServer: w, onClient: w, withBoth: w}
}

// TestNames: the name leads elsewhere, is unknown, or nobody tells.
func TestNames(t *testing.T) {
	t.Parallel()
	const elsewhere = diagnose.DNSElsewhere
	both := serverIP + " " + serverIP6
	for _, c := range []struct {
		name, now string
		target    string
		files     func(t *testing.T, f *field)
		want      map[place]want
	}{
		{name: "another host's address", now: routerIP, want: map[place]want{
			onServer: surely(elsewhere, diagnose.NotKnown), onClient: untold(diagnose.Refused, elsewhere), withBoth: surely(elsewhere, diagnose.Refused),
		}},
		{name: "an alias to another host", now: "= other.example.com", want: map[place]want{
			onServer: surely(elsewhere, diagnose.NotKnown), onClient: untold(diagnose.Refused, elsewhere), withBoth: surely(elsewhere, diagnose.Refused),
		}},
		{name: "the AAAA record alone is wrong", now: serverIP + " 2001:db8:1::1", want: map[place]want{
			onServer: perhaps(elsewhere, diagnose.Connected), onClient: untold(diagnose.Connected, elsewhere), withBoth: perhaps(elsewhere, diagnose.Connected),
		}},
		{name: "the hosts file of the client says otherwise", now: both, want: map[place]want{
			onClient: perhaps(elsewhere, diagnose.Refused), withBoth: surely(elsewhere, diagnose.Refused),
		}, files: func(t *testing.T, f *field) {
			write(t, f.clientRoot, "etc/hosts", "127.0.0.1 localhost\n203.0.113.1\tchat.example.com chat # moved\n")
		}},
		{name: "a private address is published", now: "10.20.0.5", want: map[place]want{
			onServer: untold(diagnose.Connected, diagnose.PrivateAddress), onClient: perhaps(diagnose.PrivateAddress, diagnose.Timeout), withBoth: perhaps(diagnose.PrivateAddress, diagnose.Timeout),
		}, files: func(t *testing.T, f *field) {
			ip(t, f.server, "address add 10.20.0.5/24 dev eth0")
			ip(t, f.router, "route add blackhole 10.0.0.0/8")
		}},
		{name: "no such name", now: "", want: nameless(surely)},
		{name: "a name without addresses", now: "= empty.example.com", want: nameless(surely)},
		{name: "the resolver fails", now: "!SERVFAIL", want: nameless(perhaps)},
		{name: "the resolver refuses", now: "!REFUSED", want: nameless(perhaps)},
		{name: "the resolver is silent", now: "!silence", want: nameless(perhaps)},
		{name: "no IPv4 address, and the question for IPv6 fails", now: "!SERVFAIL/AAAA", want: nameless(perhaps)},
		{name: "no IPv6 address, and the question for IPv4 fails", now: "!SERVFAIL/A", want: nameless(perhaps)},
		{name: "no IPv4 address, and nobody answers for IPv6", now: "!silence/AAAA", want: nameless(perhaps)},
	} {
		z, healthy := servesNamed(both)
		case_{name: c.name, target: named, healthy: healthy, want: c.want, make: func(t *testing.T, f *field) {
			z.set("chat.example.com", c.now)
			z.set("other.example.com", routerIP)
			z.set("empty.example.com", "!")
			if c.files != nil {
				c.files(t, f)
			}
		}}.prove(t)
	}
	t.Run("no name server runs", func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		serves(t, f)
		for _, at := range []place{onServer, onClient, withBoth} {
			r := f.ask(t, at, named, diagnose.Options{})
			blames(t, r, at, diagnose.NameUnknown, diagnose.Likely)
			if s := flat(t, r); !strings.Contains(s, "connection refused") {
				t.Errorf("%s: it is not said why:\n%s", at, text(t, r))
			}
			keep(t, string(at), r)
		}
	})
	// One family's trouble is no accusation where the other has an address.
	for name, value := range map[string]string{
		"no IPv6 address": serverIP, "no IPv4 address": serverIP6, "IPv6 fails": serverIP + " !SERVFAIL/AAAA", "nobody answers for IPv6": serverIP + " !silence/AAAA",
		"IPv4 fails": serverIP6 + " !SERVFAIL/A",
	} {
		t.Run("one family works: "+name, func(t *testing.T) {
			t.Parallel()
			f := newField(t)
			_, healthy := servesNamed(value)
			healthy(t, f)
			o := diagnose.Options{}
			if !strings.Contains(value, serverIP) {
				o.From = netip.MustParseAddr(clientIP6)
			}
			for _, at := range []place{onServer, onClient, withBoth} {
				r := f.ask(t, at, named, o)
				clear_(t, r, at)
				if c := r.Cause(diagnose.NameUnknown); c.Verdict != diagnose.RuledOut {
					t.Errorf("%s: %s is %s\n%s", at, c.ID, c.Verdict, text(t, r))
				}
			}
		})
	}
	t.Run("a second name server knows it", func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		serves(t, f)
		second := resolver(t, f.router, "203.0.113.1:53", map[string]string{"chat.example.com": serverIP})
		for _, root := range []string{f.clientRoot, f.serverRoot} { // nobody is asked at the first address
			write(t, root, "etc/resolv.conf", "nameserver 198.51.100.1\nnameserver "+routerIP+"\n")
		}
		for _, at := range []place{onServer, onClient, withBoth} {
			clear_(t, f.ask(t, at, named, diagnose.Options{}), at)
		}
		second.set("chat.example.com", "")
		for _, at := range []place{onServer, onClient, withBoth} {
			blames(t, f.ask(t, at, named, diagnose.Options{}), at, diagnose.NameUnknown, diagnose.Likely)
		}
	})
	// A name of a balancer in front leads to another host as well, and works.
	t.Run("another host's address, where somebody serves", func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		z, healthy := servesNamed(both)
		healthy(t, f)
		f.listen(t, f.router, "0.0.0.0:8080")
		z.set("chat.example.com", routerIP)
		for _, at := range []place{onServer, onClient, withBoth} {
			r := f.ask(t, at, named, diagnose.Options{})
			if at == onClient {
				clear_(t, r, at)
			} else {
				open(t, r, at, r.ClientSees, elsewhere)
			}
			keep(t, string(at), r)
		}
	})
	t.Run("short names and long answers", func(t *testing.T) {
		f := newField(t)
		serves(t, f)
		z := resolver(t, f.router, "203.0.113.1:53", map[string]string{"chat.example.com": "!truncated " + serverIP})
		write(t, f.clientRoot, "etc/resolv.conf", "search corp.example example.com\nnameserver "+routerIP+"\noptions ndots:1\n")
		clear_(t, f.ask(t, onClient, "tcp://chat:8080", diagnose.Options{}), onClient)
		z.set("chat.corp.example", routerIP)
		r := f.ask(t, withBoth, "tcp://chat:8080", diagnose.Options{})
		blames(t, r, withBoth, elsewhere, diagnose.Confirmed)
		if s := flat(t, r); !strings.Contains(s, "chat.corp.example") {
			t.Errorf("the name that was found is not named:\n%s", text(t, r))
		}
	})
}

// TestCDN: an accelerating proxy stands in front, and passes what it passes.
func TestCDN(t *testing.T) {
	t.Parallel()
	const cdn = diagnose.CDNBetween
	front := func(t *testing.T, f *field, addrs ...string) {
		for _, a := range addrs {
			ip(t, f.router, "address add "+a+" dev lo")
		}
		f.listen(t, f.router, "0.0.0.0:80", "0.0.0.0:443", "0.0.0.0:8443")
		// It drops what it does not pass.
		f.router.Load(t, lab.NFT, "table inet g { chain i { type filter hook input priority 0; ip daddr { 104.16.1.2, 192.0.2.7 } tcp dport != { 80, 443, 8443 } drop; }; }")
	}
	behind := func(value string) func(t *testing.T, f *field) {
		return func(t *testing.T, f *field) {
			front(t, f, "104.16.1.2/32", "192.0.2.7/32")
			serves(t, f)
			resolver(t, f.router, "203.0.113.1:53", map[string]string{
				"www.example.com": value, "www.example.com.cdn.cloudflare.net": "104.16.1.2", "www.example.com.w.kunlunca.com": "192.0.2.7",
			})
		}
	}
	for _, c := range []struct {
		name, value, healthy, target string
		sees                         diagnose.Sees
		onServer                     diagnose.Sees
	}{
		{"by its range", "104.16.1.2", "wss://www.example.com", "ws://www.example.com:2346", diagnose.Timeout, diagnose.NotKnown},
		{"by its range, https", "104.16.1.2", "https://www.example.com:8443", "http://www.example.com:7272", diagnose.Timeout, diagnose.NotKnown},
		{"by its alias", "= www.example.com.w.kunlunca.com", "http://www.example.com", "ws://www.example.com:8282", diagnose.Timeout, diagnose.NotKnown},
		{"a protocol that none passes", "104.16.1.2", "http://www.example.com", "tcp://www.example.com:80", diagnose.Connected, diagnose.NotKnown},
		{"text in front of port 443", "= www.example.com.cdn.cloudflare.net", "https://www.example.com", "text://www.example.com:443", diagnose.Connected, diagnose.NotKnown},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newField(t)
			behind(c.value)(t, f)
			for _, at := range []place{onServer, onClient, withBoth} {
				r := f.ask(t, at, c.healthy, diagnose.Options{})
				sees := diagnose.Connected
				if at == onServer {
					sees = c.onServer
				}
				open(t, r, at, sees)
				r = f.ask(t, at, c.target, diagnose.Options{})
				blames(t, r, at, cdn, diagnose.Confirmed)
				if at != onServer && r.ClientSees != c.sees {
					t.Errorf("%s: the client sees %s, want %s", at, r.ClientSees, c.sees)
				}
				keep(t, string(at), r)
			}
		})
	}
	for _, status := range []string{"520", "521", "522", "523", "524", "525", "526", "530"} {
		t.Run("its own error status "+status, func(t *testing.T) {
			t.Parallel()
			message := diagnose.Options{Message: "Error during WebSocket handshake: Unexpected response code: " + status}
			f := newField(t)
			behind("104.16.1.2")(t, f)
			for _, at := range []place{onServer, onClient, withBoth} {
				open(t, f.ask(t, at, "wss://www.example.com/", diagnose.Options{}), at, map[bool]diagnose.Sees{true: diagnose.NotKnown, false: diagnose.Connected}[at == onServer])
				r := f.ask(t, at, "wss://www.example.com/", message)
				blames(t, r, at, cdn, diagnose.Confirmed)
				keep(t, string(at), r)
				// At the server's own address nobody stands in between: the number is its own.
				r = f.ask(t, at, "ws://198.51.100.20:8080/", message)
				if at == onClient {
					blames(t, r, at, cdn, diagnose.Likely)
				} else {
					blames(t, r, at, diagnose.HandshakeRejected, diagnose.Confirmed)
				}
			}
		})
	}
}

// TestClientProxy: the settings of the client's program name a proxy that does
// not work.
func TestClientProxy(t *testing.T) {
	t.Parallel()
	const site = "http://198.51.100.20:8080/"
	const dead, alive = "http_proxy=http://127.0.0.1:7890", "http_proxy=http://203.0.113.1:3128"
	environ := func(kv ...string) diagnose.Options {
		return diagnose.Options{Files: diagnose.HostOptions{Environ: kv}}
	}
	newHost := func(t *testing.T) *field {
		f := newField(t)
		serves(t, f)
		f.listen(t, f.router, "0.0.0.0:3128")
		return f
	}
	for _, at := range []place{onClient, withBoth} {
		for _, c := range []struct {
			name  string
			o     diagnose.Options
			files map[string]string
			blame bool
		}{
			{name: "a dead proxy in the environment", o: environ(dead), blame: true},
			{name: "a proxy that answers", o: environ(alive)},
			{name: "a dead proxy, but not for this host", o: environ(dead, "no_proxy=localhost,198.51.100.0/24")},
			{name: "a dead proxy for another scheme", o: environ("https_proxy=http://127.0.0.1:7890")},
			{name: "all_proxy", o: environ("ALL_PROXY=socks5://127.0.0.1:1080"), blame: true},
			{name: "/etc/environment", files: map[string]string{"etc/environment": "PATH=/bin\n" + dead + "\n"}, blame: true},
			{name: "systemd's DefaultEnvironment", files: map[string]string{"etc/systemd/system.conf": "[Manager]\nDefaultEnvironment=\"" + dead + "\" A=b\n"}, blame: true},
		} {
			t.Run(c.name+" "+string(at), func(t *testing.T) {
				t.Parallel()
				f := newHost(t)
				for name, text := range c.files {
					write(t, f.clientRoot, name, text)
				}
				r := f.ask(t, at, site, c.o)
				if c.blame {
					blames(t, r, at, diagnose.ClientProxy, diagnose.Confirmed)
				} else {
					clear_(t, r, at)
				}
				keep(t, c.name, r)
			})
		}
	}
	t.Run("of the very process", func(t *testing.T) {
		t.Parallel()
		f := newHost(t)
		write(t, f.clientRoot, "etc/environment", alive+"\n")
		for _, c := range []struct {
			env   string
			blame diagnose.Verdict
		}{{dead, diagnose.Confirmed}, {"no_proxy=*", ""}, {"LD_PRELOAD=libproxychains.so.4", diagnose.Likely}} {
			cmd := child(t, f.client, []string{c.env}, "sleep")
			o := diagnose.Options{Files: diagnose.HostOptions{PID: cmd.Process.Pid, Environ: []string{dead}}}
			for _, at := range []place{onClient, withBoth} {
				if o.Message = ""; strings.HasPrefix(c.env, "LD") {
					// Alone it is no fault: only with a program that fails.
					clear_(t, f.ask(t, at, site, o), at)
					o.Message = "Connection refused"
				}
				r := f.ask(t, at, site, o)
				if c.blame != "" {
					blames(t, r, at, diagnose.ClientProxy, c.blame)
				} else {
					clear_(t, r, at)
				}
			}
		}
	})
}

// TestLocalEgress: the client's own rules hold its connections back, or lead
// them into a proxy.
func TestLocalEgress(t *testing.T) {
	t.Parallel()
	lab.Need(t, "iptables-legacy", "nft")
	rule := func(table, rule string) func(t *testing.T, f *field) {
		return func(t *testing.T, f *field) {
			f.client.Load(t, lab.IPTablesLegacy, "*"+table+"\n-A OUTPUT -p tcp --dport 8080 "+rule+"\nCOMMIT\n")
		}
	}
	for _, c := range []struct {
		name string
		make func(t *testing.T, f *field)
		sees diagnose.Sees
	}{
		{"DROP", rule("filter", "-j DROP"), diagnose.Timeout},
		{"REJECT", rule("filter", "-j REJECT"), diagnose.Refused},
		{"REJECT with tcp-reset", rule("filter", "-j REJECT --reject-with tcp-reset"), diagnose.Refused},
		{"REJECT with icmp-admin-prohibited", rule("filter", "-j REJECT --reject-with icmp-admin-prohibited"), diagnose.Unreachable},
		{"REDIRECT into a proxy that is dead", rule("nat", "-j REDIRECT --to-ports 12345"), diagnose.Refused},
		{"TPROXY into a proxy that is dead", deadTPROXY, diagnose.Timeout},
		{"nft policy", func(t *testing.T, f *field) {
			f.client.Load(t, lab.NFT, "table inet f { chain o { type filter hook output priority 0; policy drop; tcp dport 443 accept; }; }")
		}, diagnose.Timeout},
	} {
		w := surely(diagnose.ClientProxy, c.sees)
		case_{name: c.name, target: target, make: c.make, want: map[place]want{onClient: w, withBoth: w}}.prove(t)
	}
}
