package diagnose

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Target is what the client wants to reach.
type Target struct {
	Text string // as it was given
	// Scheme is "" for a bare host:port, otherwise http, https, ws, wss, tcp, ssl,
	// text or frame.
	Scheme string
	Host   string     // name or address, without brackets and zone
	Addr   netip.Addr // valid where Host is an address
	Port   uint16
	Path   string // of a URL, with its query; "" for none
}

var schemePorts = map[string]uint16{"http": 80, "ws": 80, "https": 443, "wss": 443, "tcp": 0, "ssl": 0, "text": 0, "frame": 0}

// schemeNames are other spellings that clients and configurations use.
var schemeNames = map[string]string{"websocket": "ws", "tls": "ssl", "unix": ""}

// ParseTarget reads host:port, or a URL of one of the known schemes. A bare port
// (8080, :8080) is a port of this host.
func ParseTarget(s string) (Target, error) {
	t := Target{Text: s}
	fail := func(format string, args ...any) (Target, error) {
		return Target{}, fmt.Errorf("target %q: %s", s, fmt.Sprintf(format, args...))
	}
	if s == "" {
		return fail("is empty")
	}
	if strings.Contains(s, "://") {
		u, err := url.Parse(s)
		if err != nil {
			return fail("is no URL: %v", unwrapURL(err))
		}
		t.Scheme = strings.ToLower(u.Scheme)
		if other, ok := schemeNames[t.Scheme]; ok && other != "" {
			t.Scheme = other
		}
		port, ok := schemePorts[t.Scheme]
		if t.Scheme == "udp" {
			return fail("diagnose is about TCP connections; for UDP `hostaudit reach %s --proto udp` on the server says who gets in, and `hostaudit watch` with --proto udp what arrives", orWord(u.Port(), u.Host))
		}
		if !ok {
			return fail("scheme %q is none of http, https, ws, wss, tcp, ssl, text, frame", u.Scheme)
		}
		t.Host, t.Port, t.Path = u.Hostname(), port, u.RequestURI()
		if p := u.Port(); p != "" {
			n, err := parsePort(p)
			if err != nil {
				return fail("%v", err)
			}
			t.Port = n
		}
		if t.Port == 0 {
			return fail("names no port")
		}
		if t.Host == "" {
			return fail("names no host")
		}
		return t.withHost()
	}
	host, port := "", s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i+1:]
		if a, err := netip.ParseAddr(s); err == nil && a.Is6() {
			return fail("an IPv6 address stands in brackets and needs a port, [%s]:PORT", a)
		}
		if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
			host = host[1 : len(host)-1]
			if a, err := netip.ParseAddr(host); err != nil || !a.Is6() {
				return fail("only an IPv6 address stands in brackets")
			}
		} else if strings.Contains(host, ":") {
			return fail("an IPv6 address stands in brackets, [%s]:PORT", host)
		}
	} else if _, err := strconv.ParseUint(s, 10, 16); err != nil {
		return fail("names no port: HOST:PORT or a URL")
	}
	n, err := parsePort(port)
	if err != nil {
		return fail("%v", err)
	}
	t.Host, t.Port = host, n
	return t.withHost()
}

func (t Target) withHost() (Target, error) {
	if a, err := netip.ParseAddr(t.Host); err == nil {
		t.Addr = a.Unmap()
		t.Host = t.Addr.String()
		return t, nil
	}
	if t.Host == "" {
		return t, nil
	}
	if len(t.Host) > 253 || strings.ContainsFunc(t.Host, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`/\@?#"'<>|`, r) }) {
		return Target{}, fmt.Errorf("target %q: %q is no host name", t.Text, t.Host)
	}
	return t, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || strings.HasPrefix(s, "+") {
		return 0, fmt.Errorf("%q is not a port from 1 to 65535", s)
	}
	return uint16(n), nil
}

func unwrapURL(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok {
		if inner := u.Unwrap(); inner != nil {
			return inner
		}
	}
	return err
}

// Named tells that the target is a name that must be looked up.
func (t Target) Named() bool { return t.Host != "" && !t.Addr.IsValid() }

// TLS tells that the client begins with a TLS handshake.
func (t Target) TLS() bool { return t.Scheme == "https" || t.Scheme == "wss" || t.Scheme == "ssl" }

// WebSocket tells that the client asks for an upgrade.
func (t Target) WebSocket() bool { return t.Scheme == "ws" || t.Scheme == "wss" }

// HTTP tells that the client begins with an HTTP request (inside TLS or not).
func (t Target) HTTP() bool {
	return t.Scheme == "http" || t.Scheme == "https" || t.WebSocket()
}

// HostPort is the target without scheme and path.
func (t Target) HostPort() string {
	if t.Addr.IsValid() {
		return netip.AddrPortFrom(t.Addr, t.Port).String()
	}
	return t.Host + ":" + strconv.Itoa(int(t.Port))
}

func itoa(n int) string { return strconv.Itoa(n) }
