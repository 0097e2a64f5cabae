package diagnose

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Symptom is a client's message, understood.
type Symptom struct {
	Text string
	// Sees is what the message says, "" where it was not understood.
	Sees Sees
	// Kind is finer than Sees: the errno's name, or what broke afterwards.
	Kind Kind
	// Bind: it is a message of bind(2) or listen(2), so of a server that starts
	// or a client that chooses its own address; Connect: of connect(2).
	Bind, Connect bool
	Status        int // of HTTP, 0 for none
	// Addr is an address named in the text, invalid for none.
	Addr netip.Addr
	Port uint16
}

// Kind is what a message or a connection ended with.
type Kind string

// The kinds.
const (
	KindNone          Kind = ""
	KindRefused       Kind = "ECONNREFUSED"
	KindTimeout       Kind = "ETIMEDOUT"
	KindNoHost        Kind = "EHOSTUNREACH"
	KindNoNet         Kind = "ENETUNREACH"
	KindAccess        Kind = "EACCES"
	KindNoProtocol    Kind = "ENOPROTOOPT"
	KindInvalid       Kind = "EINVAL"
	KindAddrNotAvail  Kind = "EADDRNOTAVAIL"
	KindAddrInUse     Kind = "EADDRINUSE"
	KindReset         Kind = "ECONNRESET"
	KindEmpty         Kind = "empty reply"
	KindTLS           Kind = "TLS"
	KindCertificate   Kind = "certificate"
	KindMixed         Kind = "mixed content"
	KindNotHTTP       Kind = "not HTTP"
	KindHandshake     Kind = "WebSocket handshake"
	KindStatus        Kind = "HTTP status"
	KindNoName        Kind = "name unknown"
	KindNoAnswer      Kind = "no answer of the resolver"
	KindReadTimeout   Kind = "connected, no reply"
	KindProxy         Kind = "proxy"
	KindPlainToTLS    Kind = "plain HTTP to TLS"
	KindTLSToPlain    Kind = "TLS to a plain listener"
	KindUnknownClosed Kind = "closed"
)

// phrase is a piece of a message and what it means. Messages are compared in
// lower case. The list is gone through in order: the special before the general.
type phrase struct {
	text string
	sees Sees
	kind Kind
}

var phrases = []phrase{
	// Inside the browser, before any packet.
	{"mixed content", ProtocolError, KindMixed},
	{"insecure websocket connection may not be initiated from a page loaded over https", ProtocolError, KindMixed},
	{"the operation is insecure", ProtocolError, KindMixed},
	// The proxy of the client.
	{"err_proxy_connection_failed", Refused, KindProxy},
	{"err_tunnel_connection_failed", Refused, KindProxy},
	{"proxyconnect tcp", Refused, KindProxy},
	{"proxyerror", Refused, KindProxy},
	{"could not resolve proxy", Refused, KindProxy},
	{"received http code 502 from proxy after connect", Refused, KindProxy},
	{"from proxy after connect", Refused, KindProxy},
	// Names.
	{"err_name_not_resolved", NoName, KindNoName},
	{"dns_probe_finished_nxdomain", NoName, KindNoName},
	{"dns_probe_finished_no_internet", NoName, KindNoAnswer},
	{"err_name_resolution_failed", NoName, KindNoAnswer},
	{"ns_error_unknown_host", NoName, KindNoName},
	{"could not resolve host", NoName, KindNoName},
	{"name or service not known", NoName, KindNoName},
	{"nodename nor servname provided", NoName, KindNoName},
	{"no address associated with hostname", NoName, KindNoName},
	{"temporary failure in name resolution", NoName, KindNoAnswer},
	{"php_network_getaddresses: getaddrinfo", NoName, KindNoName},
	{"getaddrinfo enotfound", NoName, KindNoName},
	{"enotfound", NoName, KindNoName},
	{"eai_again", NoName, KindNoAnswer},
	{"no such host", NoName, KindNoName},
	{"unknownhostexception", NoName, KindNoName},
	{"server misbehaving", NoName, KindNoAnswer},
	{"servfail", NoName, KindNoAnswer},
	{"nxdomain", NoName, KindNoName},
	{"getaddrinfo failed", NoName, KindNoName},
	{"host not found", NoName, KindNoName},
	{"hostname cannot be resolved", NoName, KindNoName},
	// TLS. The plain side first.
	{"plain http request was sent to https port", ProtocolError, KindPlainToTLS},
	{"client sent an http request to an https server", ProtocolError, KindPlainToTLS},
	{"speaking plain http to an ssl-enabled server port", ProtocolError, KindPlainToTLS},
	{"server gave http response to https client", ProtocolError, KindTLSToPlain},
	{"first record does not look like a tls handshake", ProtocolError, KindTLSToPlain},
	{"wrong version number", ProtocolError, KindTLSToPlain},
	{"ssl_error_rx_record_too_long", ProtocolError, KindTLSToPlain},
	{"unrecognized ssl message, plaintext connection", ProtocolError, KindTLSToPlain},
	{"packet length too long", ProtocolError, KindTLSToPlain},
	{"http_request", ProtocolError, KindPlainToTLS}, // OpenSSL's reason "http request" is spelled so in PHP
	{"ssl routines:ssl3_get_record:http request", ProtocolError, KindPlainToTLS},
	{"err_cert_", ProtocolError, KindCertificate},
	{"net::err_cert", ProtocolError, KindCertificate},
	{"sec_error_", ProtocolError, KindCertificate},
	{"ssl_error_bad_cert_domain", ProtocolError, KindCertificate},
	{"mozilla_pkix_error", ProtocolError, KindCertificate},
	{"certificate verify failed", ProtocolError, KindCertificate},
	{"certificate_verify_failed", ProtocolError, KindCertificate},
	{"ssl certificate problem", ProtocolError, KindCertificate},
	{"no alternative certificate subject name matches", ProtocolError, KindCertificate},
	{"x509: ", ProtocolError, KindCertificate},
	{"unable to verify the first certificate", ProtocolError, KindCertificate},
	{"self-signed certificate", ProtocolError, KindCertificate},
	{"self signed certificate", ProtocolError, KindCertificate},
	{"certificate has expired", ProtocolError, KindCertificate},
	{"pkix path building failed", ProtocolError, KindCertificate},
	{"err_tls_cert_altname_invalid", ProtocolError, KindCertificate},
	{"subject name does not match", ProtocolError, KindCertificate},
	{"err_ssl_protocol_error", ProtocolError, KindTLS},
	{"err_ssl_version_or_cipher_mismatch", ProtocolError, KindTLS},
	{"ssl_error_", ProtocolError, KindTLS},
	{"ssl handshake", ProtocolError, KindTLS},
	{"tls handshake timeout", ProtocolError, KindReadTimeout},
	{"tls: ", ProtocolError, KindTLS},
	{"sslhandshakeexception", ProtocolError, KindTLS},
	{"sslv3_alert", ProtocolError, KindTLS},
	{"sslv3 alert", ProtocolError, KindTLS},
	{"tlsv1 alert", ProtocolError, KindTLS},
	{"ssl_connect", ProtocolError, KindTLS},
	{"failed to enable crypto", ProtocolError, KindTLS},
	{"ssl: ", ProtocolError, KindTLS},
	{"ssl operation failed", ProtocolError, KindTLS},
	{"sslerror", ProtocolError, KindTLS},
	// After the connection: HTTP and WebSocket.
	{"err_invalid_http_response", ProtocolError, KindNotHTTP},
	{"malformed http response", ProtocolError, KindNotHTTP},
	{"received http/0.9 when not allowed", ProtocolError, KindNotHTTP},
	{"badstatusline", ProtocolError, KindNotHTTP},
	{"hpe_invalid", ProtocolError, KindNotHTTP},
	{"parse error: expected http/", ProtocolError, KindNotHTTP},
	{"unsupported http version", ProtocolError, KindNotHTTP},
	{"invalid http version", ProtocolError, KindNotHTTP},
	{"did not receive a valid http response", ProtocolError, KindNotHTTP},
	{"websocket: bad handshake", ProtocolError, KindHandshake},
	{"'upgrade' header is missing", ProtocolError, KindHandshake},
	{"incorrect 'sec-websocket-accept' header", ProtocolError, KindHandshake},
	{"sec-websocket", ProtocolError, KindHandshake},
	{"invalid status code", ProtocolError, KindHandshake},
	{"server rejected websocket connection", ProtocolError, KindHandshake},
	{"handshake status", ProtocolError, KindHandshake},
	{"unexpected server response", ProtocolError, KindHandshake},
	{"unexpected response code", ProtocolError, KindHandshake},
	{"err_empty_response", ProtocolError, KindEmpty},
	{"empty reply from server", ProtocolError, KindEmpty},
	{"remote end closed connection without response", ProtocolError, KindEmpty},
	{"socket hang up", ProtocolError, KindEmpty},
	{"server disconnected", ProtocolError, KindEmpty},
	{"unexpected eof", ProtocolError, KindEmpty},
	{"connection closed before receiving a handshake response", ProtocolError, KindEmpty},
	{"connection was closed unexpectedly", ProtocolError, KindEmpty},
	{"err_connection_closed", ProtocolError, KindEmpty},
	{"err_connection_reset", ProtocolError, KindReset},
	{"connection reset", ProtocolError, KindReset},
	{"econnreset", ProtocolError, KindReset},
	{"broken pipe", ProtocolError, KindReset},
	{"epipe", ProtocolError, KindReset},
	{"forcibly closed by the remote host", ProtocolError, KindReset},
	{"ns_error_net_reset", ProtocolError, KindReset},
	// Addresses of this side.
	{"cannot assign requested address", CannotAssign, KindAddrNotAvail},
	{"can't assign requested address", CannotAssign, KindAddrNotAvail},
	{"eaddrnotavail", CannotAssign, KindAddrNotAvail},
	{"err_address_invalid", CannotAssign, KindAddrNotAvail},
	{"requested address is not valid in its context", CannotAssign, KindAddrNotAvail},
	{"address not available", CannotAssign, KindAddrNotAvail}, // musl
	{"address already in use", CannotAssign, KindAddrInUse},
	{"address in use", CannotAssign, KindAddrInUse},
	{"eaddrinuse", CannotAssign, KindAddrInUse},
	{"only one usage of each socket address", CannotAssign, KindAddrInUse},
	// Connections that do not come about.
	{"err_connection_refused", Refused, KindRefused},
	{"err_socks_connection_failed", Refused, KindProxy},
	{"connection refused", Refused, KindRefused},
	{"econnrefused", Refused, KindRefused},
	{"actively refused", Refused, KindRefused},
	{"ns_error_connection_refused", Refused, KindRefused},
	{"err_address_unreachable", Unreachable, KindNoHost},
	{"no route to host", Unreachable, KindNoHost},
	{"ehostunreach", Unreachable, KindNoHost},
	{"host is unreachable", Unreachable, KindNoHost}, // musl
	{"noroutetohostexception", Unreachable, KindNoHost},
	{"network is unreachable", Unreachable, KindNoNet},
	{"network unreachable", Unreachable, KindNoNet},
	{"enetunreach", Unreachable, KindNoNet},
	{"err_network_access_denied", Unreachable, KindAccess},
	{"err_internet_disconnected", Unreachable, KindNoNet},
	{"protocol not available", Unreachable, KindNoProtocol},
	{"enoprotoopt", Unreachable, KindNoProtocol},
	{"permission denied", Unreachable, KindAccess},
	{"eacces", Unreachable, KindAccess},
	{"err_connection_timed_out", Timeout, KindTimeout},
	{"err_timed_out", Timeout, KindTimeout},
	{"read timed out", ProtocolError, KindReadTimeout},
	{"operation timed out after", ProtocolError, KindReadTimeout}, // curl: connected, then nothing
	{"timeout awaiting response headers", ProtocolError, KindReadTimeout},
	{"opening handshake has timed out", Timeout, KindTimeout},
	{"timed out during opening handshake", Timeout, KindTimeout},
	{"net_error_net_timeout", Timeout, KindTimeout},
	{"ns_error_net_timeout", Timeout, KindTimeout},
	{"connection timed out", Timeout, KindTimeout},
	{"connect timed out", Timeout, KindTimeout},
	{"connection timeout", Timeout, KindTimeout},
	{"connecttimeout", Timeout, KindTimeout},
	{"operation timed out", Timeout, KindTimeout},
	{"failed to connect within", Timeout, KindTimeout},
	{"i/o timeout", Timeout, KindTimeout},
	{"context deadline exceeded", Timeout, KindTimeout},
	{"did not properly respond after a period of time", Timeout, KindTimeout},
	{"etimedout", Timeout, KindTimeout},
	{"esockettimedout", ProtocolError, KindReadTimeout},
	{"timeout was reached", Timeout, KindTimeout},
	{"timed out", Timeout, KindTimeout},
}

var (
	statusCode = regexp.MustCompile(`(?:unexpected (?:server response|response code)|handshake status|http/[0-9.]+|status(?: code)?|http error|returned error|http code|rejected websocket connection: http)[:= ]*([1-5][0-9][0-9])\b`)
	// errnoNumber is how nginx and C programs tell Linux's errno, Node an
	// exception's.
	errnoNumber = regexp.MustCompile(`(?:failed \(|errno[ :=]+|error |os error |\[errno )(?:-)?([0-9]{1,3})\b`)
	dialled     = regexp.MustCompile(`\[[0-9a-f:.]+\](?::[0-9]+)?|[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?::[0-9]+)?`)
	bindWords   = regexp.MustCompile(`\bbind\b|\bbind\(|\blisten\b|\blisten\(|stream_socket_server|unable to bind|failed to bind|bindexception|could not bind|\bbinding\b|server_bind`)
	dialWords   = regexp.MustCompile(`\bconnect\b|\bconnect\(|connecting to|stream_socket_client|fsockopen|\bdial\b|unable to connect|failed to connect|connectexception`)
)

// linuxErrnos are the numbers that messages carry on most architectures.
var linuxErrnos = map[int]phrase{
	111: {"", Refused, KindRefused}, 110: {"", Timeout, KindTimeout}, 113: {"", Unreachable, KindNoHost}, 101: {"", Unreachable, KindNoNet},
	99: {"", CannotAssign, KindAddrNotAvail}, 98: {"", CannotAssign, KindAddrInUse}, 104: {"", ProtocolError, KindReset}, 13: {"", Unreachable, KindAccess},
}

// ParseError understands the message of a client: of a browser, curl, PHP, Go,
// Python, Java, Node, nc and the like. What it does not understand has Sees "".
func ParseError(text string) Symptom {
	s := Symptom{Text: text}
	low := strings.ToLower(text)
	if len(low) > 16<<10 {
		low = low[:16<<10]
	}
	if low = strings.Join(strings.Fields(low), " "); low == "" {
		return s
	}
	low = strings.NewReplacer("’", "'", "`", "'").Replace(low)
	s.Bind = bindWords.MatchString(low)
	// PHP says "unable to connect" of a server that cannot bind as well.
	s.Connect = dialWords.MatchString(low) && !strings.Contains(low, "stream_socket_server")
	if m := statusCode.FindStringSubmatch(low); m != nil {
		s.Status, _ = strconv.Atoi(m[1])
	}
	for _, p := range phrases {
		if strings.Contains(low, p.text) {
			s.Sees, s.Kind = p.sees, p.kind
			break
		}
	}
	if s.Sees == "" {
		if m := errnoNumber.FindStringSubmatch(low); m != nil {
			n, _ := strconv.Atoi(m[1])
			if p, ok := linuxErrnos[n]; ok {
				s.Sees, s.Kind = p.sees, p.kind
			}
		}
	}
	if s.Status > 0 && (s.Sees == "" || s.Kind == KindHandshake) {
		s.Sees, s.Kind = ProtocolError, KindStatus
	}
	if s.Sees == Timeout && strings.Contains(low, "0 bytes received") {
		s.Sees, s.Kind = ProtocolError, KindReadTimeout
	}
	if s.Kind == KindAccess && s.Bind {
		s.Sees = Refused // the server does not start: nobody listens
	}
	if s.Kind == KindAddrInUse && s.Bind && !s.Connect {
		s.Sees = Refused // likewise
	}
	if m := dialled.FindString(low); m != "" {
		if ap, err := netip.ParseAddrPort(m); err == nil {
			s.Addr, s.Port = ap.Addr().Unmap(), ap.Port()
		} else if a, err := netip.ParseAddr(strings.Trim(m, "[]")); err == nil {
			s.Addr = a.Unmap()
		}
	}
	return s
}
