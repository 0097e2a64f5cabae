package diagnose

import "testing"

// TestMessages: what clients really print.
func TestMessages(t *testing.T) {
	for _, c := range []struct {
		text string
		sees Sees
		kind Kind
	}{
		{"Failed to load resource: net::ERR_CONNECTION_REFUSED", Refused, KindRefused},
		{"WebSocket connection to 'ws://chat.example.com:2346/' failed: Error in connection establishment: net::ERR_CONNECTION_TIMED_OUT", Timeout, KindTimeout},
		{"WebSocket connection to 'ws://1.2.3.4:8282/' failed: Error during WebSocket handshake: Unexpected response code: 404", ProtocolError, KindStatus},
		{"WebSocket connection to 'ws://1.2.3.4:8282/' failed: Error during WebSocket handshake: net::ERR_INVALID_HTTP_RESPONSE", ProtocolError, KindNotHTTP},
		{"WebSocket connection to 'wss://x/' failed: Error in connection establishment: net::ERR_SSL_PROTOCOL_ERROR", ProtocolError, KindTLS},
		{"WebSocket connection to 'ws://x/' failed: Connection closed before receiving a handshake response", ProtocolError, KindEmpty},
		{"WebSocket connection to 'ws://x/' failed: WebSocket opening handshake timed out: Opening handshake has timed out", Timeout, KindTimeout},
		{"Mixed Content: The page at 'https://a/' was loaded over HTTPS, but attempted to connect to the insecure WebSocket endpoint 'ws://a/'.", ProtocolError, KindMixed},
		{"net::ERR_NAME_NOT_RESOLVED", NoName, KindNoName},
		{"net::ERR_ADDRESS_UNREACHABLE", Unreachable, KindNoHost},
		{"net::ERR_EMPTY_RESPONSE", ProtocolError, KindEmpty},
		{"net::ERR_CERT_DATE_INVALID", ProtocolError, KindCertificate},
		{"curl: (7) Failed to connect to 10.0.0.5 port 8080 after 0 ms: Couldn't connect to server: Connection refused", Refused, KindRefused},
		{"curl: (28) Failed to connect to 10.0.0.5 port 8080 after 130000 ms: Connection timed out", Timeout, KindTimeout},
		{"curl: (28) Operation timed out after 5001 milliseconds with 0 bytes received", ProtocolError, KindReadTimeout},
		{"curl: (7) Failed to connect to 10.0.0.5 port 80: No route to host", Unreachable, KindNoHost},
		{"curl: (6) Could not resolve host: nowhere.example", NoName, KindNoName},
		{"curl: (52) Empty reply from server", ProtocolError, KindEmpty},
		{"curl: (56) Recv failure: Connection reset by peer", ProtocolError, KindReset},
		{"curl: (35) error:0A00010B:SSL routines::wrong version number", ProtocolError, KindTLSToPlain},
		{"curl: (60) SSL certificate problem: certificate has expired", ProtocolError, KindCertificate},
		{"curl: (1) Received HTTP/0.9 when not allowed", ProtocolError, KindNotHTTP},
		{"curl: (5) Could not resolve proxy: proxy.corp", Refused, KindProxy},
		{"PHP Warning:  stream_socket_client(): Unable to connect to tcp://127.0.0.1:2346 (Connection refused) in /a.php on line 3", Refused, KindRefused},
		{"stream_socket_client(): unable to connect to tcp://10.1.2.3:80 (Connection timed out)", Timeout, KindTimeout},
		{"stream_socket_client(): unable to connect to tcp://127.0.0.1:3306 (Cannot assign requested address)", CannotAssign, KindAddrNotAvail},
		{"stream_socket_server(): Unable to connect to tcp://203.0.113.9:2346 (Cannot assign requested address)", CannotAssign, KindAddrNotAvail},
		{"stream_socket_server(): Unable to connect to tcp://0.0.0.0:2346 (Address already in use)", Refused, KindAddrInUse},
		{"SQLSTATE[HY000] [2002] Connection refused", Refused, KindRefused},
		{"php_network_getaddresses: getaddrinfo failed: Name or service not known", NoName, KindNoName},
		{"dial tcp 10.9.0.2:8080: connect: connection refused", Refused, KindRefused},
		{"dial tcp 10.9.0.2:8080: i/o timeout", Timeout, KindTimeout},
		{"dial tcp 10.9.0.2:8080: connect: no route to host", Unreachable, KindNoHost},
		{"dial tcp 127.0.0.1:3306: connect: cannot assign requested address", CannotAssign, KindAddrNotAvail},
		{"listen tcp 203.0.113.9:8080: bind: cannot assign requested address", CannotAssign, KindAddrNotAvail},
		{"listen tcp :8080: bind: address already in use", Refused, KindAddrInUse},
		{"dial tcp: lookup nowhere.example on 127.0.0.53:53: no such host", NoName, KindNoName},
		{"http: server gave HTTP response to HTTPS client", ProtocolError, KindTLSToPlain},
		{"x509: certificate is valid for a.example, not b.example", ProtocolError, KindCertificate},
		{"websocket: bad handshake", ProtocolError, KindHandshake},
		{"Get \"http://a/\": proxyconnect tcp: dial tcp 127.0.0.1:7890: connect: connection refused", Refused, KindProxy},
		{"ConnectionRefusedError: [Errno 111] Connection refused", Refused, KindRefused},
		{"TimeoutError: [Errno 110] Connection timed out", Timeout, KindTimeout},
		{"OSError: [Errno 99] Cannot assign requested address", CannotAssign, KindAddrNotAvail},
		{"OSError: [Errno 113] No route to host", Unreachable, KindNoHost},
		{"socket.gaierror: [Errno -2] Name or service not known", NoName, KindNoName},
		{"requests.exceptions.SSLError: [SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1007)", ProtocolError, KindTLSToPlain},
		{"ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate", ProtocolError, KindCertificate},
		{"http.client.RemoteDisconnected: Remote end closed connection without response", ProtocolError, KindEmpty},
		{"websockets.exceptions.InvalidStatusCode: server rejected WebSocket connection: HTTP 403", ProtocolError, KindStatus},
		{"java.net.ConnectException: Connection refused (Connection refused)", Refused, KindRefused},
		{"java.net.SocketTimeoutException: connect timed out", Timeout, KindTimeout},
		{"java.net.SocketTimeoutException: Read timed out", ProtocolError, KindReadTimeout},
		{"java.net.NoRouteToHostException: No route to host (Host unreachable)", Unreachable, KindNoHost},
		{"java.net.UnknownHostException: nowhere.example", NoName, KindNoName},
		{"javax.net.ssl.SSLException: Unrecognized SSL message, plaintext connection?", ProtocolError, KindTLSToPlain},
		{"java.net.BindException: Cannot assign requested address", CannotAssign, KindAddrNotAvail},
		{"Error: connect ECONNREFUSED 127.0.0.1:2346", Refused, KindRefused},
		{"Error: connect ETIMEDOUT 10.1.2.3:80", Timeout, KindTimeout},
		{"Error: getaddrinfo ENOTFOUND nowhere.example", NoName, KindNoName},
		{"Error: Unexpected server response: 502", ProtocolError, KindStatus},
		{"Error: socket hang up", ProtocolError, KindEmpty},
		{"Error: listen EADDRNOTAVAIL: address not available 203.0.113.9:80", CannotAssign, KindAddrNotAvail},
		{"Error: Parse Error: Expected HTTP/", ProtocolError, KindNotHTTP},
		{"nc: connect to 10.0.0.5 port 80 (tcp) failed: Connection refused", Refused, KindRefused},
		{"ncat: Connection timed out.", Timeout, KindTimeout},
		{"connect() failed (111: Connection refused) while connecting to upstream", Refused, KindRefused},
		{"bind() to 203.0.113.9:80 failed (99: Cannot assign requested address)", CannotAssign, KindAddrNotAvail},
		{"connect() to 127.0.0.1:9000 failed (99: Cannot assign requested address) while connecting to upstream", CannotAssign, KindAddrNotAvail},
		{"400 The plain HTTP request was sent to HTTPS port", ProtocolError, KindPlainToTLS},
		{"No connection could be made because the target machine actively refused it.", Refused, KindRefused},
		{"telnet: Unable to connect to remote host: Network is unreachable", Unreachable, KindNoNet},
		{"cURL error 7: Failed to connect to 10.0.0.5 port 80: Connection refused (see https://curl.haxx.se/libcurl/c/libcurl-errors.html)", Refused, KindRefused},
		{"cURL error 28: Operation timed out after 5001 milliseconds with 0 out of 0 bytes received", ProtocolError, KindReadTimeout},
		{"cURL error 28: Connection timed out after 2002 milliseconds", Timeout, KindTimeout},
		{"curl: (7) Failed to connect to 10.0.0.5 port 80 after 0 ms: Couldn't connect to server", Refused, KindFailed},
		{"SQLSTATE[HY000] [2002] Cannot assign requested address", CannotAssign, KindAddrNotAvail},
		{"SQLSTATE[HY000] [2002] Connection timed out", Timeout, KindTimeout},
		{"SQLSTATE[HY000] [2006] MySQL server has gone away", ProtocolError, KindEmpty},
		{"mysqli_sql_exception: Connection refused in /var/www/a.php:3", Refused, KindRefused},
		{"ERROR 2003 (HY000): Can't connect to MySQL server on '10.0.0.5:3306' (111)", Refused, KindRefused},
		{"ERROR 2003 (HY000): Can't connect to MySQL server on '10.0.0.5:3306' (110)", Timeout, KindTimeout},
		{"ERROR 2003 (HY000): Can't connect to MySQL server on '10.0.0.5' (113 \"No route to host\")", Unreachable, KindNoHost},
		{"ERROR 2013 (HY000): Lost connection to MySQL server at 'reading initial communication packet', system error: 0", ProtocolError, KindEmpty},
		{"RedisException: Connection refused in /a.php:9", Refused, KindRefused},
		{"RedisException: read error on connection to 127.0.0.1:6379", ProtocolError, KindEmpty},
		{"Could not connect to Redis at 10.0.0.5:6379: Connection refused", Refused, KindRefused},
		{"Could not connect to Redis at 10.0.0.5:6379: Connection timed out", Timeout, KindTimeout},
		{"MongoNetworkError: connect ECONNREFUSED 10.0.0.5:27017", Refused, KindRefused},
		{"MongoServerSelectionError: connection timed out", Timeout, KindTimeout},
		{"psql: error: connection to server at \"10.0.0.5\", port 5432 failed: Connection refused", Refused, KindRefused},
		{"psql: error: connection to server at \"10.0.0.5\", port 5432 failed: timeout expired", Timeout, KindTimeout},
		{"server closed the connection unexpectedly This probably means the server terminated abnormally", ProtocolError, KindEmpty},
		{"org.postgresql.util.PSQLException: Connection to 10.0.0.5:5432 refused. Check that the hostname and port are correct", Refused, KindRefused},
		{"com.mysql.cj.jdbc.exceptions.CommunicationsException: Communications link failure", Refused, KindFailed},
		{"io.netty.channel.AbstractChannel$AnnotatedConnectException: Connection refused: /10.0.0.5:80", Refused, KindRefused},
		{"javax.net.ssl.SSLHandshakeException: Remote host terminated the handshake", ProtocolError, KindTLS},
		{"javax.net.ssl.SSLHandshakeException: Received fatal alert: handshake_failure", ProtocolError, KindTLS},
		{"java.net.BindException: Address already in use (Bind failed)", Refused, KindAddrInUse},
		{"System.Net.Sockets.SocketException (10061): No connection could be made because the target machine actively refused it. 10.0.0.5:80", Refused, KindRefused},
		{"System.Net.Http.HttpRequestException: Connection refused (10.0.0.5:80)", Refused, KindRefused},
		{"The SSL connection could not be established, see inner exception.", ProtocolError, KindTLS},
		{"The server returned status code '404' when status code '101' was expected.", ProtocolError, KindStatus},
		{"[WinError 10060] A connection attempt failed because the connected party did not properly respond after a period of time", Timeout, KindTimeout},
		{"connect failed with error code 10061", Refused, KindRefused},
		{"error sending request for url (http://10.0.0.5/): error trying to connect: tcp connect error: Connection refused (os error 111)", Refused, KindRefused},
		{"IO error: Connection reset by peer (os error 104)", ProtocolError, KindReset},
		{"received corrupt message of type InvalidContentType", ProtocolError, KindTLSToPlain},
		{"HTTP error: 404 Not Found", ProtocolError, KindStatus},
		{"thread 'main' panicked: Address already in use (os error 98)", CannotAssign, KindAddrInUse},
		{"connect() failed (111: Connection refused) while connecting to upstream, client: 1.2.3.4, upstream: \"http://127.0.0.1:8080/\"", Refused, KindRefused},
		{"upstream timed out (110: Connection timed out) while connecting to upstream", Timeout, KindTimeout},
		{"upstream timed out (110: Connection timed out) while reading response header from upstream", ProtocolError, KindReadTimeout},
		{"upstream prematurely closed connection while reading response header from upstream", ProtocolError, KindEmpty},
		{"upstream sent no valid HTTP/1.0 header while reading response header from upstream", ProtocolError, KindNotHTTP},
		{"recv() failed (104: Connection reset by peer) while reading response header from upstream", ProtocolError, KindReset},
		{"connect() failed (113: No route to host) while connecting to upstream", Unreachable, KindNoHost},
		{"connect() to unix:/run/php/php-fpm.sock failed (11: Resource temporarily unavailable) while connecting to upstream", Timeout, KindSocketFull},
		{"accept4() failed (24: Too many open files)", Timeout, KindFiles},
		{"host not found in upstream \"backend\" in /etc/nginx/conf.d/a.conf:3", NoName, KindNoName},
		{"SSL_do_handshake() failed (SSL: error:0A00010B:SSL routines::wrong version number) while SSL handshaking to upstream", ProtocolError, KindTLSToPlain},
		{"(111)Connection refused: AH00957: HTTP: attempt to connect to 127.0.0.1:8080 (127.0.0.1) failed", Refused, KindRefused},
		{"Server app/web1 is DOWN, reason: Layer4 connection problem, info: \"Connection refused\"", Refused, KindRefused},
		{"Server app/web1 is DOWN, reason: Layer4 timeout, check duration: 2001ms", Timeout, KindTimeout},
		{"Server app/web1 is DOWN, reason: Layer7 wrong status, code: 404", ProtocolError, KindStatus},
		{"WebSocket connection to 'wss://chat.example.com/' failed: ", Refused, KindFailed},
		{"Firefox can’t establish a connection to the server at wss://chat.example.com/.", Refused, KindFailed},
		{"WebSocket network error: The operation couldn’t be completed. Connection refused", Refused, KindRefused},
		{"WebSocket network error: OSStatus Error -9807: Invalid certificate chain", ProtocolError, KindCertificate},
		{"NS_ERROR_WEBSOCKET_CONNECTION_REFUSED", ProtocolError, KindHandshake},
		{"NS_ERROR_CONNECTION_REFUSED", Refused, KindRefused},
		{"NS_ERROR_PROXY_CONNECTION_REFUSED", Refused, KindProxy},
		{"NS_ERROR_NET_TIMEOUT", Timeout, KindTimeout},
		{"NS_ERROR_UNKNOWN_HOST", NoName, KindNoName},
		{"SSL_ERROR_RX_RECORD_TOO_LONG", ProtocolError, KindTLSToPlain},
		{"PR_END_OF_FILE_ERROR", ProtocolError, KindTLS},
		{"A server with the specified hostname could not be found.", NoName, KindNoName},
		{"The network connection was lost.", ProtocolError, KindReset},
		{"net::ERR_UNSAFE_PORT", Refused, KindUnsafePort},
		{"net::ERR_SSL_UNRECOGNIZED_NAME_ALERT", ProtocolError, KindTLS},
		{"net::ERR_ADDRESS_IN_USE", CannotAssign, KindAddrInUse},
		{"Error during WebSocket handshake: net::ERR_CONNECTION_RESET", ProtocolError, KindReset},
		{"TypeError: Failed to fetch", Refused, KindFailed},
		{"Get \"http://10.0.0.5/\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)", Timeout, KindTimeout},
		{"Get \"http://10.0.0.5/\": EOF", ProtocolError, KindEmpty},
		{"remote error: tls: handshake failure", ProtocolError, KindTLS},
		{"requests.exceptions.ConnectTimeout: HTTPConnectionPool(host='10.0.0.5', port=80): Max retries exceeded with url: / (Caused by ConnectTimeoutError(<x>, 'Connection to 10.0.0.5 timed out. (connect timeout=2)'))", Timeout, KindTimeout},
		{"requests.exceptions.ReadTimeout: HTTPConnectionPool(host='10.0.0.5', port=80): Read timed out. (read timeout=2)", ProtocolError, KindReadTimeout},
		{"aiohttp.client_exceptions.ClientConnectorError: Cannot connect to host 10.0.0.5:80 ssl:default [Connect call failed ('10.0.0.5', 80)]", Refused, KindFailed},
		{"aiohttp.client_exceptions.WSServerHandshakeError: 403, message='Invalid response status', url=URL('ws://x')", ProtocolError, KindStatus},
		{"websockets.exceptions.InvalidMessage: did not receive a valid HTTP response", ProtocolError, KindNotHTTP},
		{"ConnectTimeoutError: Connect Timeout Error (attempted address: 10.0.0.5:80, timeout: 10000ms)", Timeout, KindTimeout},
		{"Errno::ECONNREFUSED: Failed to open TCP connection to 10.0.0.5:80 (Connection refused - connect(2))", Refused, KindRefused},
		{"Net::OpenTimeout: execution expired", Timeout, KindTimeout},
		{"Net::ReadTimeout with #<TCPSocket:(closed)>", ProtocolError, KindReadTimeout},
		{"wget: can't connect to remote host (10.0.0.5): Connection refused", Refused, KindRefused},
		{"wget: bad address 'nowhere.example'", NoName, KindNoName},
		{"kex_exchange_identification: Connection closed by remote host", ProtocolError, KindEmpty},
		{"From 10.0.0.1 icmp_seq=1 Destination Host Unreachable", Unreachable, KindNoHost},
		{"rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial tcp 10.0.0.5:80: connect: connection refused\"", Refused, KindRefused},
		{"everything is fine", "", KindNone},
		{"", "", KindNone},
	} {
		got := ParseError(c.text)
		if got.Sees != c.sees || got.Kind != c.kind {
			t.Errorf("%q: %s %s, want %s %s", c.text, got.Sees, got.Kind, c.sees, c.kind)
		}
	}
	s := ParseError("dial tcp 10.9.0.2:8080: connect: connection refused")
	if !s.Connect || s.Bind || s.Addr.String() != "10.9.0.2" || s.Port != 8080 {
		t.Errorf("%+v", s)
	}
	if s := ParseError("bind() to [2001:db8::9]:80 failed (99: x)"); !s.Bind || s.Addr.String() != "2001:db8::9" || s.Sees != CannotAssign {
		t.Errorf("%+v", s)
	}
}

// FuzzParseError: no message makes it panic.
func FuzzParseError(f *testing.F) {
	f.Add("dial tcp [::1]:80: connect: connection refused (HTTP/1.1 502)")
	f.Fuzz(func(_ *testing.T, s string) { ParseError(s) })
}

// FuzzParseTarget: no target makes it panic, and what it takes has a port.
func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"ws://chat.example.com:2346/x", "[::1]:80", ":80", "a:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if x, err := ParseTarget(s); err == nil && x.Port == 0 {
			t.Fatalf("%q: no port", s)
		}
	})
}

// TestTargets reads what people type.
func TestTargets(t *testing.T) {
	for in, want := range map[string]string{
		"ws://chat.example.com:2346": "ws chat.example.com 2346", "wss://a/b": "wss a 443", "http://[2001:db8::1]": "http 2001:db8::1 80",
		"10.0.0.5:8080": " 10.0.0.5 8080", "[2001:db8::1]:443": " 2001:db8::1 443", "8080": "  8080", ":8080": "  8080",
		"text://10.0.0.1:9": "text 10.0.0.1 9", "websocket://0.0.0.0:2346": "ws 0.0.0.0 2346",
		"": "error", "a": "error", "tcp://a": "error", "ftp://a": "error", "a:0": "error", "2001:db8::1": "error", "a:70000": "error", "a b:80": "error",
	} {
		x, err := ParseTarget(in)
		got := "error"
		if err == nil {
			got = x.Scheme + " " + x.Host + " " + itoa(int(x.Port))
		}
		if got != want {
			t.Errorf("%q: %q, want %q (%v)", in, got, want, err)
		}
	}
}
