package diagnose

import (
	"fmt"
	"time"

	"github.com/hostaudit/hostaudit/audit"
)

// Schema names the form of a Report in JSON.
const Schema = "hostaudit/diagnose/v1"

// ID names a cause as scripts know it.
type ID string

// The causes.
const (
	WrongPort          ID = "wrong-port"
	WrongAddress       ID = "wrong-address"
	DNSElsewhere       ID = "dns-points-elsewhere"
	CDNBetween         ID = "cdn-in-between"
	NotListening       ID = "not-listening"
	ClientProxy        ID = "client-proxy"
	BindAddress        ID = "bind-address"
	RejectedByFirewall ID = "rejected-by-firewall"
	HostFirewall       ID = "host-firewall"
	CloudGroup         ID = "cloud-security-group"
	PanelFirewall      ID = "panel-firewall"
	HostDown           ID = "host-down"
	PrivateAddress     ID = "private-address"
	QueueFull          ID = "listen-queue-full"
	ConntrackFull      ID = "conntrack-full"
	ReplyPath          ID = "reply-path"
	EphemeralExhausted ID = "ephemeral-range-exhausted"
	TimeWaitExhaustion ID = "time-wait-exhaustion"
	SourceMissing      ID = "source-address-missing"
	ProtocolMismatch   ID = "protocol-mismatch"
	TLSMismatch        ID = "tls-mismatch"
	HandshakeRejected  ID = "handshake-rejected"
	NameUnknown        ID = "name-unknown"
)

// Sees is what the client of a diagnosis sees.
type Sees string

// What a client can see. NotKnown is for answers that turn on something that
// cannot be told from here: they come without an attempt and without a message.
const (
	Connected     Sees = "connected"
	Refused       Sees = "refused"
	Timeout       Sees = "timeout"
	Unreachable   Sees = "unreachable"
	CannotAssign  Sees = "cannot-assign-address"
	NoName        Sees = "name-unknown"
	ProtocolError Sees = "protocol-error" // connected, then an error
	NotKnown      Sees = "cannot-tell"
)

// Verdict is how sure a cause is.
type Verdict string

// The verdicts.
const (
	Confirmed  Verdict = "confirmed"
	Likely     Verdict = "likely"
	CannotTell Verdict = "cannot-tell"
	RuledOut   Verdict = "ruled-out"
)

func (v Verdict) rank() int {
	switch v {
	case Confirmed:
		return 0
	case Likely:
		return 1
	case CannotTell:
		return 2
	}
	return 3
}

// Cause is one possible reason, judged.
type Cause struct {
	ID      ID      `json:"id"`
	Verdict Verdict `json:"verdict"`
	// Evidence is what speaks for the verdict; for cannot-tell, the last entry of
	// source "to decide" says what would decide it.
	Evidence []audit.Evidence `json:"evidence"`
	Remedy   string           `json:"remedy"`
	// What says which kind of the cause it is, in a few words, where it has several.
	What string `json:"what,omitempty"`

	weight int // orders causes of one verdict, heavier first
}

// Title says what it is, in a few words.
func (c *Cause) Title() string {
	if c.What != "" {
		return c.What
	}
	return Title(c.ID)
}

// Accused tells a cause that the answer blames.
func (c *Cause) Accused() bool { return c.Verdict == Confirmed || c.Verdict == Likely }

// Side says where an answer was made.
type Side string

// The sides. At SideBoth client and server are one host: the target is a
// loopback address, or the client's address is the host's own.
const (
	SideServer Side = "server"
	SideClient Side = "client"
	SideBoth   Side = "both"
)

// Report is an answer.
type Report struct {
	Schema string `json:"schema"`
	Target string `json:"target"`
	Side   Side   `json:"side"`
	// WithServer: at the client, the server's snapshot was there as well.
	WithServer bool   `json:"with_server,omitempty"`
	From       string `json:"from,omitempty"`
	ClientSees Sees   `json:"client_sees"`
	// Summary is the answer in one sentence.
	Summary string    `json:"summary"`
	Causes  []Cause   `json:"causes"`
	Tried   []Attempt `json:"attempts,omitempty"`
	// Incomplete is what could not be read.
	Incomplete []audit.Gap `json:"incomplete"`
	TakenAt    time.Time   `json:"taken_at"`
}

// Cause finds a cause of the report.
func (r *Report) Cause(id ID) *Cause {
	for i := range r.Causes {
		if r.Causes[i].ID == id {
			return &r.Causes[i]
		}
	}
	return nil
}

// entry is what is known of a cause without any evidence.
type entry struct {
	id    ID
	sees  []Sees // what a client sees of it
	prior int    // orders causes when evidence is silent (the shares of the manual of Workerman)
	title string
	// shown is what the evidence consists of, and proof the test that produces
	// the cause for real.
	shown, proof string
}

// catalogue lists the causes in the order of the contract.
var catalogue = []entry{
	{WrongPort, []Sees{Refused}, 15, "the client dials another port than the service has",
		"nothing listens on the port; the listener that was probably meant: configured under services (a client tries that port), the same digits in another order, or the URL's protocol in its process title; internal ports of GatewayWorker", "TestWrongPort, TestGatewayPorts, TestInternalPorts"},
	{WrongAddress, []Sees{Refused, Timeout, Unreachable}, 15, "the address is not this service's host",
		"the address is not among the server's (its snapshot), and nobody serves there; the client has no route to it (errno), nobody on the link owns it (3 s until EHOSTUNREACH)", "TestWrongAddress"},
	{DNSElsewhere, []Sees{Refused, Timeout}, 15, "the name resolves to another host",
		"A, AAAA and hosts file, each with the resolver asked, against the server's addresses; nobody serves there", "TestNames, TestSplitView"},
	{CDNBetween, []Sees{Refused, Timeout, ProtocolError}, 10, "a CDN or proxy stands in front of the server",
		"embedded ranges with their date, CNAME suffix, headers, Cloudflare's own statuses; whether it passes the port and the protocol", "TestCDN, TestCDNByHeaders"},
	{NotListening, []Sees{Refused}, 5, "nothing listens on the port",
		"no socket in any namespace, address translation to a dead port, the unit that should hold it (--unit, services:, an earlier report, socket units, commands and unit files that name the port) and how systemd says that it ended: exit status, signal, timeout, start limit, masked, disabled, a condition, what it requires, its socket; processes killed for memory and crashes in the kernel's log; a stale pid file, a bind error in its log (--log)", "TestNotListening, TestUnits"},
	{ClientProxy, []Sees{Refused, Timeout, ProtocolError}, 3, "the client goes through a proxy, or its own rules hold it back",
		"proxy variables of the very process and whether that proxy answers, LD_PRELOAD, REDIRECT, TPROXY and DNAT by no SYN on the client's wire, a route into a tunnel", "TestClientProxy, TestLocalEgress, TestLocalProxy, TestTunnel"},
	{BindAddress, []Sees{Refused}, 10, "the service listens on another address than the one dialled",
		"the socket table: loopback, one address, one family (v6only), a device, another namespace", "TestBindAddress"},
	{RejectedByFirewall, []Sees{Refused, Unreachable}, 20, "a firewall rejects the connection",
		"the model's witness; at the client the ICMP error and its source, or a reset that is not the kernel's; its errors are rate-limited", "TestRejected, TestRejectedInSilence"},
	{HostFirewall, []Sees{Timeout}, 25, "the server's firewall drops the connection",
		"the model's witness (rule or policy), its counter", "TestHostFirewall"},
	{CloudGroup, []Sees{Timeout}, 25, "something before the server drops the connection: a security group, an ACL, the provider",
		"the server would answer and no SYN arrives; never confirmed from inside", "TestBeforeTheHost"},
	{PanelFirewall, []Sees{Timeout}, 10, "the firewall of a hosting panel drops the connection",
		"the witness stands in a chain or set of the panel; its database of ports, addresses, forwards and countries", "TestPanel"},
	{HostDown, []Sees{Timeout, Unreachable}, 3, "the server is down, or never was there",
		"nobody answers ARP or neighbour discovery; ruled out by any answer", "TestHostDown"},
	{PrivateAddress, []Sees{Timeout, Unreachable, Refused}, 8, "the address is private and the client is not in that network",
		"RFC 1918, 100.64/10, 169.254/16, fc00::/7 and no connected or special route to it", "TestPrivateAddress"},
	{QueueFull, []Sees{Timeout, ProtocolError}, 4, "the accept queue is full: the service does not accept",
		"queue against its limit, overflows between two readings, descriptors against the limit; SYN floods and exhausted TCP memory in the kernel's log", "TestQueueFull, TestKernelLog"},
	{ConntrackFull, []Sees{Timeout}, 3, "the connection tracking table is full",
		"count against maximum, the drop counter between two readings, the kernel's log", "TestConntrackFull, TestKernelLog"},
	{ReplyPath, []Sees{Timeout, Unreachable, ProtocolError}, 4, "the request arrives and the answer does not get back",
		"reverse-path filter, missing route, output rules (model and counters); a blackhole route of the client; path MTU: full segments sent again and again, an answer that comes in small segments alone, routers' messages that the rules drop; a full neighbour table in the kernel's log", "TestReplyPath, TestPathMTU, TestKernelLog"},
	{EphemeralExhausted, []Sees{CannotAssign}, 12, "every local port for this destination is in use",
		"errno of a connection, plain and bound before connecting; the census of local ports", "TestEphemeralExhausted"},
	{TimeWaitExhaustion, []Sees{CannotAssign}, 10, "closed connections in TIME_WAIT hold the local ports",
		"the census: most of the used ports are in TIME_WAIT", "TestTimeWait"},
	{SourceMissing, []Sees{CannotAssign}, 8, "the program binds an address that the host does not have",
		"errno of bind, the host's addresses, tentative ones", "TestSourceMissing"},
	{ProtocolMismatch, []Sees{ProtocolError}, 20, "client and service speak different protocols",
		"the process title, the log's magic numbers, the configuration of nginx, Apache or HAProxy and what is said of the listener behind it, the answer to a probe, against the URL", "TestProtocols, TestNginx, TestApache, TestHAProxy"},
	{TLSMismatch, []Sees{ProtocolError}, 15, "one side speaks TLS and the other does not, or the certificate does not fit",
		"the web server's configuration (file and line), a handshake, a plain answer to a ClientHello, an alert to plain bytes, the certificate", "TestProtocols, TestOldLog, TestNginx, TestApache, TestHAProxy"},
	{HandshakeRejected, []Sees{ProtocolError}, 12, "the WebSocket upgrade or the request is refused",
		"the web server's configuration (file and line): where the path leads, upgrade headers that get lost, a backend where nothing listens, redirects and refusals; the status line and headers", "TestProtocols, TestReverseProxy, TestNotReady, TestNginx, TestNginxReload, TestNginxRoot, TestApache, TestHAProxy, TestHAProxyJail"},
	{NameUnknown, []Sees{NoName}, 10, "the name does not resolve",
		"the resolver's answer for each family: NXDOMAIN, no data, SERVFAIL, silence", "TestNames"},
}

// Title says what a cause is, in a few words.
func Title(id ID) string {
	for _, e := range catalogue {
		if e.id == id {
			return e.title
		}
	}
	return string(id)
}

func evidence(source, format string, args ...any) audit.Evidence {
	return audit.Evidence{Source: source, Value: fmt.Sprintf(format, args...)}
}
