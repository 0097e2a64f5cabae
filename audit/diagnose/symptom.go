package diagnose

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Symptom is a client's message, understood.
type Symptom struct {
	Text string
	// Sees is what the message says, "" where it was not understood.
	Sees Sees
	// Also is what it may mean as well: some programs print the same for several.
	Also []Sees
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
	KindFailed        Kind = "no connection" // why, the program does not say
	KindUnsafePort    Kind = "unsafe port"
	KindFiles         Kind = "EMFILE"
	KindSocketFull    Kind = "EAGAIN of a unix socket"
)

// phrase is a piece of a message and what it means. Messages are compared in
// lower case. The list is gone through in order: the special before the general.
type phrase struct {
	text string
	sees Sees
	kind Kind
	also []Sees
}

// anyFailure is what a program means that says no more than that it failed.
var (
	anyFailure  = []Sees{Timeout, Unreachable, CannotAssign, ProtocolError, NoName}
	quickly     = []Sees{Unreachable, CannotAssign} // not a timeout, that has a message of its own
	maybeLater  = []Sees{ProtocolError}             // a timeout, of the connection or of the answer
	maybeSooner = []Sees{Timeout}
)

var phrases = []phrase{
	// Inside the browser, before any packet.
	{"mixed content", ProtocolError, KindMixed, nil},
	{"insecure websocket connection may not be initiated from a page loaded over https", ProtocolError, KindMixed, nil},
	{"the operation is insecure", ProtocolError, KindMixed, nil},
	{"err_unsafe_port", Refused, KindUnsafePort, nil},
	// The proxy of the client.
	{"err_proxy_connection_failed", Refused, KindProxy, nil},
	{"err_tunnel_connection_failed", Refused, KindProxy, nil},
	{"ns_error_proxy_connection_refused", Refused, KindProxy, nil},
	{"ns_error_unknown_proxy_host", Refused, KindProxy, nil},
	{"proxyconnect tcp", Refused, KindProxy, nil},
	{"proxyerror", Refused, KindProxy, nil},
	{"could not resolve proxy", Refused, KindProxy, nil},
	{"received http code 502 from proxy after connect", Refused, KindProxy, nil},
	{"from proxy after connect", Refused, KindProxy, nil},
	// Names.
	{"err_name_not_resolved", NoName, KindNoName, nil},
	{"dns_probe_finished_nxdomain", NoName, KindNoName, nil},
	{"dns_probe_finished_no_internet", NoName, KindNoAnswer, nil},
	{"err_name_resolution_failed", NoName, KindNoAnswer, nil},
	{"ns_error_unknown_host", NoName, KindNoName, nil},
	{"could not resolve host", NoName, KindNoName, nil},
	{"unresolvedaddressexception", NoName, KindNoName, nil}, // Java's HttpClient
	{"name or service not known", NoName, KindNoName, nil},
	{"nodename nor servname provided", NoName, KindNoName, nil},
	{"no address associated with hostname", NoName, KindNoName, nil},
	{"temporary failure in name resolution", NoName, KindNoAnswer, nil},
	{"php_network_getaddresses: getaddrinfo", NoName, KindNoName, nil},
	{"getaddrinfo enotfound", NoName, KindNoName, nil},
	{"enotfound", NoName, KindNoName, nil},
	{"eai_again", NoName, KindNoAnswer, nil},
	{"no such host", NoName, KindNoName, nil},
	{"unknownhostexception", NoName, KindNoName, nil},
	{"server misbehaving", NoName, KindNoAnswer, nil},
	{"servfail", NoName, KindNoAnswer, nil},
	{"nxdomain", NoName, KindNoName, nil},
	{"resolving timed out", NoName, KindNoAnswer, nil},
	{"unable to resolve host address", NoName, KindNoAnswer, nil}, // wget
	{"dial tcp: lookup ", NoName, KindNoAnswer, nil},              // no such host is above
	{"no such host is known", NoName, KindNoName, nil},
	{"name does not resolve", NoName, KindNoName, nil}, // musl
	{"bad hostname", NoName, KindNoName, nil},
	{"bad address '", NoName, KindNoName, nil}, // busybox
	{"hostname could not be found", NoName, KindNoName, nil},
	{"failed to lookup address information", NoName, KindNoName, nil},
	{"getaddrinfo failed", NoName, KindNoName, nil},
	{"host not found", NoName, KindNoName, nil},
	{"hostname cannot be resolved", NoName, KindNoName, nil},
	// TLS. The plain side first.
	{"plain http request was sent to https port", ProtocolError, KindPlainToTLS, nil},
	{"client sent an http request to an https server", ProtocolError, KindPlainToTLS, nil},
	{"speaking plain http to an ssl-enabled server port", ProtocolError, KindPlainToTLS, nil},
	{"server gave http response to https client", ProtocolError, KindTLSToPlain, nil},
	{"first record does not look like a tls handshake", ProtocolError, KindTLSToPlain, nil},
	{"wrong_version_number", ProtocolError, KindTLSToPlain, nil},
	{"unrecognized ssl message", ProtocolError, KindTLSToPlain, nil},
	{"invalidcontenttype", ProtocolError, KindTLSToPlain, nil}, // rustls
	{"wrong version number", ProtocolError, KindTLSToPlain, nil},
	{"ssl_error_rx_record_too_long", ProtocolError, KindTLSToPlain, nil},
	{"unrecognized ssl message, plaintext connection", ProtocolError, KindTLSToPlain, nil},
	{"packet length too long", ProtocolError, KindTLSToPlain, nil},
	{"http_request", ProtocolError, KindPlainToTLS, nil}, // OpenSSL's reason "http request" is spelled so in PHP
	{"ssl routines:ssl3_get_record:http request", ProtocolError, KindPlainToTLS, nil},
	{"err_cert_", ProtocolError, KindCertificate, nil},
	{"net::err_cert", ProtocolError, KindCertificate, nil},
	{"sec_error_", ProtocolError, KindCertificate, nil},
	{"ssl_error_bad_cert_domain", ProtocolError, KindCertificate, nil},
	{"mozilla_pkix_error", ProtocolError, KindCertificate, nil},
	{"certificate verify failed", ProtocolError, KindCertificate, nil},
	{"certificate_verify_failed", ProtocolError, KindCertificate, nil},
	{"ssl certificate problem", ProtocolError, KindCertificate, nil},
	{"no alternative certificate subject name matches", ProtocolError, KindCertificate, nil},
	{"x509: ", ProtocolError, KindCertificate, nil},
	{"unable to verify the first certificate", ProtocolError, KindCertificate, nil},
	{"self-signed certificate", ProtocolError, KindCertificate, nil},
	{"self signed certificate", ProtocolError, KindCertificate, nil},
	{"certificate has expired", ProtocolError, KindCertificate, nil},
	{"invalid certificate chain", ProtocolError, KindCertificate, nil},
	{"the remote certificate is invalid", ProtocolError, KindCertificate, nil},
	{"doesn't have a known issuer", ProtocolError, KindCertificate, nil},
	{"does not match hostname", ProtocolError, KindCertificate, nil},
	{"has not yet been activated", ProtocolError, KindCertificate, nil},
	{"pkix path building failed", ProtocolError, KindCertificate, nil},
	{"err_tls_cert_altname_invalid", ProtocolError, KindCertificate, nil},
	{"subject name does not match", ProtocolError, KindCertificate, nil},
	{"err_ssl_protocol_error", ProtocolError, KindTLS, nil},
	{"err_ssl_version_or_cipher_mismatch", ProtocolError, KindTLS, nil},
	{"err_ssl_", ProtocolError, KindTLS, nil},
	{"pr_end_of_file_error", ProtocolError, KindTLS, nil},
	{"an ssl error has occurred", ProtocolError, KindTLS, nil},
	{"ssl connection could not be established", ProtocolError, KindTLS, nil},
	{"remote host terminated the handshake", ProtocolError, KindTLS, nil},
	{"ssl_error_", ProtocolError, KindTLS, nil},
	{"ssl handshake", ProtocolError, KindTLS, nil},
	{"tls handshake timeout", ProtocolError, KindReadTimeout, nil},
	{"tls: ", ProtocolError, KindTLS, nil},
	{"sslhandshakeexception", ProtocolError, KindTLS, nil},
	{"sslv3_alert", ProtocolError, KindTLS, nil},
	{"sslv3 alert", ProtocolError, KindTLS, nil},
	{"tlsv1 alert", ProtocolError, KindTLS, nil},
	{"ssl_connect", ProtocolError, KindTLS, nil},
	{"failed to enable crypto", ProtocolError, KindTLS, nil},
	{"ssl: ", ProtocolError, KindTLS, nil},
	{"ssl operation failed", ProtocolError, KindTLS, nil},
	{"sslerror", ProtocolError, KindTLS, nil},
	// After the connection: HTTP and WebSocket.
	{"err_invalid_http_response", ProtocolError, KindNotHTTP, nil},
	{"malformed http response", ProtocolError, KindNotHTTP, nil},
	{"received http/0.9 when not allowed", ProtocolError, KindNotHTTP, nil},
	{"badstatusline", ProtocolError, KindNotHTTP, nil},
	{"hpe_invalid", ProtocolError, KindNotHTTP, nil},
	{"parse error: expected http/", ProtocolError, KindNotHTTP, nil},
	{"unsupported http version", ProtocolError, KindNotHTTP, nil},
	{"invalid http version", ProtocolError, KindNotHTTP, nil},
	{"did not receive a valid http response", ProtocolError, KindNotHTTP, nil},
	{"invalid http response", ProtocolError, KindNotHTTP, nil},
	{"invalid status line", ProtocolError, KindNotHTTP, nil},
	{"no response code found in status line", ProtocolError, KindNotHTTP, nil},
	{"sent no valid http/", ProtocolError, KindNotHTTP, nil},
	{"does not match the http/1.1 protocol", ProtocolError, KindNotHTTP, nil},
	{"ns_error_websocket_connection_refused", ProtocolError, KindHandshake, nil},
	{"websocket: bad handshake", ProtocolError, KindHandshake, nil},
	{"'upgrade' header is missing", ProtocolError, KindHandshake, nil},
	{"incorrect 'sec-websocket-accept' header", ProtocolError, KindHandshake, nil},
	{"sec-websocket", ProtocolError, KindHandshake, nil},
	{"invalid status code", ProtocolError, KindHandshake, nil},
	{"server rejected websocket connection", ProtocolError, KindHandshake, nil},
	{"handshake status", ProtocolError, KindHandshake, nil},
	{"unexpected server response", ProtocolError, KindHandshake, nil},
	{"unexpected response code", ProtocolError, KindHandshake, nil},
	{"err_empty_response", ProtocolError, KindEmpty, nil},
	{"err_socket_not_connected", ProtocolError, KindEmpty, nil}, // closed before the request was out
	{"unexpected end of file", ProtocolError, KindEmpty, nil},
	{"failed to fill whole buffer", ProtocolError, KindEmpty, nil}, // Rust
	{"http request failed!", ProtocolError, KindEmpty, nil},        // PHP: nothing came, or no HTTP
	{"no data received", ProtocolError, KindEmpty, nil},
	{"server closed idle connection", ProtocolError, KindEmpty, nil}, // Go
	{"empty reply from server", ProtocolError, KindEmpty, nil},
	{"remote end closed connection without response", ProtocolError, KindEmpty, nil},
	{"socket hang up", ProtocolError, KindEmpty, nil},
	{"server disconnected", ProtocolError, KindEmpty, nil},
	{"unexpected eof", ProtocolError, KindEmpty, nil},
	{"prematurely closed connection", ProtocolError, KindEmpty, nil},
	{"connection prematurely closed", ProtocolError, KindEmpty, nil},
	{"connection closed by remote host", ProtocolError, KindEmpty, nil},
	{"other side closed", ProtocolError, KindEmpty, nil},
	{"server closed the connection unexpectedly", ProtocolError, KindEmpty, nil},
	{"lost connection to mysql server", ProtocolError, KindEmpty, nil},
	{"server has gone away", ProtocolError, KindEmpty, nil},
	{"server went away", ProtocolError, KindEmpty, nil},
	{"handshake not finished", ProtocolError, KindEmpty, nil},
	{"java.io.eofexception", ProtocolError, KindEmpty, nil},
	{"err_incomplete_chunked_encoding", ProtocolError, KindEmpty, nil},
	{"err_content_length_mismatch", ProtocolError, KindEmpty, nil},
	{"network connection was lost", ProtocolError, KindReset, nil},
	{"ns_error_net_interrupt", ProtocolError, KindReset, nil},
	{"pr_connect_reset_error", ProtocolError, KindReset, nil},
	{"err_connection_aborted", ProtocolError, KindReset, nil},
	{"err_http2_protocol_error", ProtocolError, KindReset, nil},
	{"connection was aborted", ProtocolError, KindReset, nil},
	{"read error on connection to", ProtocolError, KindEmpty, maybeSooner}, // phpredis
	{"connection closed before receiving a handshake response", ProtocolError, KindEmpty, nil},
	{"connection was closed unexpectedly", ProtocolError, KindEmpty, nil},
	{"err_connection_closed", ProtocolError, KindEmpty, nil},
	{"err_connection_reset", ProtocolError, KindReset, nil},
	{"connection reset", ProtocolError, KindReset, nil},
	{"econnreset", ProtocolError, KindReset, nil},
	{"broken pipe", ProtocolError, KindReset, nil},
	{"epipe", ProtocolError, KindReset, nil},
	{"forcibly closed by the remote host", ProtocolError, KindReset, nil},
	{"ns_error_net_reset", ProtocolError, KindReset, nil},
	// Addresses of this side.
	{"cannot assign requested address", CannotAssign, KindAddrNotAvail, nil},
	{"can't assign requested address", CannotAssign, KindAddrNotAvail, nil},
	{"eaddrnotavail", CannotAssign, KindAddrNotAvail, nil},
	{"err_address_invalid", CannotAssign, KindAddrNotAvail, nil},
	{"requested address is not valid in its context", CannotAssign, KindAddrNotAvail, nil},
	{"address not available", CannotAssign, KindAddrNotAvail, nil}, // musl
	{"address already in use", CannotAssign, KindAddrInUse, nil},
	{"address in use", CannotAssign, KindAddrInUse, nil},
	{"eaddrinuse", CannotAssign, KindAddrInUse, nil},
	{"only one usage of each socket address", CannotAssign, KindAddrInUse, nil},
	{"err_address_in_use", CannotAssign, KindAddrInUse, nil},
	// The server's own side.
	{"too many open files", Timeout, KindFiles, []Sees{ProtocolError}},
	// Connections that do not come about.
	{"err_connection_refused", Refused, KindRefused, nil},
	{"err_socks_connection_failed", Refused, KindProxy, nil},
	{"connection refused", Refused, KindRefused, nil},
	{"econnrefused", Refused, KindRefused, nil},
	{"actively refused", Refused, KindRefused, nil},
	{"ns_error_connection_refused", Refused, KindRefused, nil},
	{" refused. check that the hostname", Refused, KindRefused, nil}, // JDBC of PostgreSQL
	{"err_address_unreachable", Unreachable, KindNoHost, nil},
	{"no route to host", Unreachable, KindNoHost, nil},
	{"ehostunreach", Unreachable, KindNoHost, nil},
	{"host is unreachable", Unreachable, KindNoHost, nil}, // musl
	{"noroutetohostexception", Unreachable, KindNoHost, nil},
	{"network is unreachable", Unreachable, KindNoNet, nil},
	{"network unreachable", Unreachable, KindNoNet, nil},
	{"enetunreach", Unreachable, KindNoNet, nil},
	{"err_network_access_denied", Unreachable, KindAccess, nil},
	{"err_internet_disconnected", Unreachable, KindNoNet, nil},
	{"protocol not available", Unreachable, KindNoProtocol, nil},
	{"enoprotoopt", Unreachable, KindNoProtocol, nil},
	{"permission denied", Unreachable, KindAccess, nil},
	{"eacces", Unreachable, KindAccess, nil},
	{"destination host unreachable", Unreachable, KindNoHost, nil},
	{"err_connection_timed_out", Timeout, KindTimeout, nil},
	{"err_timed_out", Timeout, KindTimeout, nil},
	{"read timed out", ProtocolError, KindReadTimeout, nil},
	{"operation timed out after", ProtocolError, KindReadTimeout, nil}, // curl: connected, then nothing
	{"timeout awaiting response headers", ProtocolError, KindReadTimeout, nil},
	{"in headers. giving up", ProtocolError, KindReadTimeout, nil},    // wget
	{"timed out) while reading", ProtocolError, KindReadTimeout, nil}, // nginx
	{"net::readtimeout", ProtocolError, KindReadTimeout, nil},
	{"headers timeout error", ProtocolError, KindReadTimeout, nil},
	{"und_err_headers_timeout", ProtocolError, KindReadTimeout, nil},
	{"resource temporarily unavailable (os error 11)", ProtocolError, KindReadTimeout, nil}, // SO_RCVTIMEO
	{"request canceled while waiting for connection", Timeout, KindTimeout, nil},
	{"net::opentimeout", Timeout, KindTimeout, nil},
	{"connect timeout error", Timeout, KindTimeout, nil},
	{"und_err_connect_timeout", Timeout, KindTimeout, nil},
	{"layer4 timeout", Timeout, KindTimeout, nil},
	{"timeout expired", Timeout, KindTimeout, nil}, // libpq
	{"opening handshake has timed out", Timeout, KindTimeout, maybeLater},
	{"timed out during opening handshake", Timeout, KindTimeout, maybeLater},
	{"net_error_net_timeout", Timeout, KindTimeout, nil},
	{"ns_error_net_timeout", Timeout, KindTimeout, nil},
	{"connection timed out", Timeout, KindTimeout, nil},
	{"connect timed out", Timeout, KindTimeout, nil},
	{"connection timeout", Timeout, KindTimeout, nil},
	{"connecttimeout", Timeout, KindTimeout, nil},
	{"operation timed out", Timeout, KindTimeout, nil},
	{"failed to connect within", Timeout, KindTimeout, nil},
	{"i/o timeout", Timeout, KindTimeout, nil},
	{"context deadline exceeded", Timeout, KindTimeout, maybeLater},
	{"timeout specified has expired", Timeout, KindTimeout, maybeLater}, // APR
	{"execution expired", Timeout, KindTimeout, maybeLater},
	{"connect: timeout", Timeout, KindTimeout, nil}, // Perl
	{"did not properly respond after a period of time", Timeout, KindTimeout, nil},
	{"etimedout", Timeout, KindTimeout, nil},
	{"esockettimedout", ProtocolError, KindReadTimeout, nil},
	{"timeout was reached", Timeout, KindTimeout, nil},
	{"timed out", Timeout, KindTimeout, maybeLater},
	{"aborterror", Timeout, KindTimeout, maybeLater},
	{"timeouterror", Timeout, KindTimeout, maybeLater},
	// What does not say why.
	{"couldn't connect to server", Refused, KindFailed, quickly}, // curl 7.85 and later, without -v
	{"connect call failed", Refused, KindFailed, quickly},
	{"could not connect to the server", Refused, KindFailed, anyFailure},
	{"can't establish a connection to the server at ws", Refused, KindFailed, anyFailure},
	{"can't establish a connection to the server", Refused, KindFailed, quickly},
	{"unable to connect to the remote server", Refused, KindFailed, anyFailure},
	{"communications link failure", Refused, KindFailed, anyFailure},
	{"closedchannelexception", Refused, KindFailed, anyFailure}, // Java's HttpClient
	{"failed to connect to all addresses", Refused, KindFailed, anyFailure},
	{"fetch failed", Refused, KindFailed, anyFailure},
	{"failed to fetch", Refused, KindFailed, anyFailure},
	{"networkerror when attempting to fetch", Refused, KindFailed, anyFailure},
	{"error in connection establishment", Refused, KindFailed, anyFailure},
}

var (
	statusCode = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?:unexpected (?:server response|response code)|handshake status|http/[0-9.]+|status(?: code)?|http error|returned error|http code|rejected websocket connection: http|wsserverhandshakeerror|wrong status, code)[:= ']*([1-5][0-9][0-9])\b`)
	})
	// errnoNumber is how nginx and C programs tell Linux's errno, Node an
	// exception's.
	errnoNumber = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?:failed \(|errno[ :=]+|error[ :=]+|os error |\[errno |winerror |error code[ :=]+|can't connect to [^()]*\()(?:-)?([0-9]{1,5})\b`)
	})
	dialled = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`\[[0-9a-f:.]+\](?::[0-9]+)?|[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?::[0-9]+)?`)
	})
	bindWords = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`\bbind\b|\bbind\(|\blisten\b|\blisten\(|stream_socket_server|unable to bind|failed to bind|bindexception|could not bind|\bbinding\b|server_bind`)
	})
	// readWords tell that a timeout was one of reading: the connection had come
	// about (of Python by the traceback).
	readWords = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`0 bytes received|recv_into\(|getresponse\(|in readinto|while reading response header|read error \(connection timed out\)`)
	})
	dialWords = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`\bconnect\b|\bconnect\(|connecting to|stream_socket_client|fsockopen|\bdial\b|unable to connect|failed to connect|connectexception|sock\.connect\(`)
	})
)

// linuxErrnos are the numbers that messages carry on most architectures.
var linuxErrnos = map[int]phrase{
	111: {sees: Refused, kind: KindRefused}, 110: {sees: Timeout, kind: KindTimeout}, 113: {sees: Unreachable, kind: KindNoHost}, 101: {sees: Unreachable, kind: KindNoNet},
	99: {sees: CannotAssign, kind: KindAddrNotAvail}, 98: {sees: CannotAssign, kind: KindAddrInUse}, 104: {sees: ProtocolError, kind: KindReset}, 13: {sees: Unreachable, kind: KindAccess},
	// Winsock's (WSAECONNREFUSED and so on).
	10061: {sees: Refused, kind: KindRefused}, 10060: {sees: Timeout, kind: KindTimeout}, 10065: {sees: Unreachable, kind: KindNoHost}, 10051: {sees: Unreachable, kind: KindNoNet},
	10049: {sees: CannotAssign, kind: KindAddrNotAvail}, 10048: {sees: CannotAssign, kind: KindAddrInUse}, 10054: {sees: ProtocolError, kind: KindReset}, 10013: {sees: Unreachable, kind: KindAccess},
	11001: {sees: NoName, kind: KindNoName},
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
	low = strings.NewReplacer("’", "'", "‘", "'", "`", "'").Replace(low)
	s.Bind = bindWords().MatchString(low)
	// PHP says "unable to connect" of a server that cannot bind as well.
	s.Connect = dialWords().MatchString(low) && !strings.Contains(low, "stream_socket_server")
	if m := statusCode().FindStringSubmatch(low); m != nil {
		s.Status, _ = strconv.Atoi(m[1])
	}
	for _, p := range phrases {
		if strings.Contains(low, p.text) {
			s.Sees, s.Kind, s.Also = p.sees, p.kind, p.also
			break
		}
	}
	if s.Sees == "" {
		for _, m := range errnoNumber().FindAllStringSubmatch(low, 8) {
			n, _ := strconv.Atoi(m[1])
			if p, ok := linuxErrnos[n]; ok {
				s.Sees, s.Kind = p.sees, p.kind
				break
			}
		}
	}
	if s.Status > 0 && (s.Sees == "" || s.Kind == KindHandshake) {
		s.Sees, s.Kind = ProtocolError, KindStatus
	}
	if s.Sees == Timeout && s.Kind == KindTimeout && readWords().MatchString(low) {
		s.Sees, s.Kind, s.Also = ProtocolError, KindReadTimeout, nil
	}
	if len(s.Also) > 0 && s.Kind == KindTimeout && s.Connect {
		s.Also = nil
	}
	if strings.Contains(low, "to unix:") && strings.Contains(low, "(11: resource temporarily unavailable)") {
		s.Sees, s.Kind = Timeout, KindSocketFull
	}
	if s.Sees == "" && strings.HasSuffix(low, ": eof") { // Go
		s.Sees, s.Kind = ProtocolError, KindEmpty
	}
	if s.Sees == "" && strings.Contains(low, "websocket connection to ") && strings.Contains(low, " failed") {
		s.Sees, s.Kind, s.Also = Refused, KindFailed, anyFailure
	}
	if s.Kind == KindAccess && s.Bind {
		s.Sees = Refused // the server does not start: nobody listens
	}
	if s.Kind == KindAddrInUse && s.Bind && !s.Connect {
		s.Sees = Refused // likewise
	}
	if m := dialled().FindString(low); m != "" {
		if ap, err := netip.ParseAddrPort(m); err == nil {
			s.Addr, s.Port = ap.Addr().Unmap(), ap.Port()
		} else if a, err := netip.ParseAddr(strings.Trim(m, "[]")); err == nil {
			s.Addr = a.Unmap()
		}
	}
	return s
}
