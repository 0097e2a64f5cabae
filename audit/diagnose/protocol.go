package diagnose

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Protocols that a listener may speak, as Declared and Probed name them.
const (
	SpeaksTLS       = "tls"
	SpeaksHTTP      = "http"
	SpeaksWebSocket = "websocket"
	SpeaksText      = "text"
	SpeaksFrame     = "frame"
	SpeaksTCP       = "tcp" // a protocol of the application's own
	SpeaksOther     = "bytes that are no HTTP"
)

// wants is the protocol a URL asks for behind TLS, "" for a bare host:port or a
// scheme that promises nothing.
func (t Target) wants() string {
	switch {
	case t.WebSocket():
		return SpeaksWebSocket
	case t.HTTP():
		return SpeaksHTTP
	case t.Scheme == "text":
		return SpeaksText
	case t.Scheme == "frame":
		return SpeaksFrame
	}
	return ""
}

// Probed is what a listener answered to the least that tells.
type Probed struct {
	To netip.AddrPort
	// Speaks is one of the Speaks… constants, or the name of a protocol known by
	// its banner; "" where the answers do not tell.
	Speaks string
	TLS    bool // below Speaks
	// Upgraded: 101 with the right Sec-WebSocket-Accept; WrongAccept: with another.
	Upgraded, WrongAccept bool
	Status                int // of an HTTP answer, 0 for none
	Headers               map[string]string
	Answer                string // the first bytes, host text
	// Certificate is what is wrong with it, "" for nothing; Untrusted: this
	// host's roots do not vouch for it.
	Certificate string
	Untrusted   bool
	// TLSAlert is the listener's complaint about a ClientHello.
	TLSAlert string
	// Steps says what was sent and what came, in order.
	Steps []string
	// Silent: nothing came and the connection stayed open; Closed: it was closed
	// without a byte.
	Silent, Closed bool
	// Late: it speaks HTTP, by its answer to a ClientHello, and the request was not
	// answered in time; Speaks is "" then, since that answer would tell.
	Late bool
	// Cut is how many bytes the beginning of an HTTP answer lacked when it stopped
	// coming, 0 for none.
	Cut int
	// Dropped: the upgrade was granted, and the connection closed at once.
	Dropped bool
	// SmallOnly: an answer comes if the segments are small, and stays away if they
	// are as large as usual.
	SmallOnly bool

	slow    bool // an HTTP answer began and was not there in time
	segment int  // the largest segment to agree on, 0 for what the links take
}

// ProbeLimit is the deadline of one question to a listener on this host, and
// RemoteProbeLimit of one to another host.
const (
	ProbeLimit       = 300 * time.Millisecond
	RemoteProbeLimit = 2 * time.Second
)

// Probe asks a listener what it speaks: it waits for a banner, then sends a
// WebSocket upgrade and a ClientHello, the one that the target's URL means first,
// one connection each, and stops at the first answer that tells. A service with a
// line protocol receives what is sent. now judges certificates.
func Probe(ctx context.Context, to netip.AddrPort, t Target, limit time.Duration, now time.Time) *Probed {
	if limit == 0 {
		limit = ProbeLimit
	}
	p := &Probed{To: to, Headers: map[string]string{}}
	if b, _ := p.exchange(ctx, min(limit, time.Second), "banner", nil); len(b) > 0 {
		if name := banner(b); name != "" {
			p.Speaks, p.Answer = name, firstLine(b)
			return p
		}
		p.Speaks, p.Answer = SpeaksOther, firstLine(b)
		return p
	}
	if p.unreachable() {
		return p
	}
	steps := []func() bool{func() bool { return p.clientHello(ctx, t, limit, now) }, func() bool { return p.upgrade(ctx, t, limit) }}
	if !t.TLS() && t.Scheme != "" {
		steps[0], steps[1] = steps[1], steps[0]
	}
	told := steps[0]()
	waits := p.Silent // the request the URL means
	if small := p.smaller(ctx, t, limit, now); small != nil {
		return small
	}
	if !told && !p.slow {
		steps[1]()
	}
	if waits && p.Speaks == SpeaksHTTP && p.Status == 0 && t.HTTP() && !t.TLS() {
		p.Late, p.Silent, p.Speaks = true, true, ""
	}
	if waits && t.TLS() && p.TLS && p.Speaks == SpeaksTLS && p.TLSAlert == "" {
		// It refuses plain text, and was too slow for the handshake: what it says to
		// that text is no answer to the URL's request.
		p.Silent, p.Status = true, 0
	}
	return p
}

func (p *Probed) unreachable() bool {
	return len(p.Steps) > 0 && strings.HasPrefix(p.Steps[len(p.Steps)-1], "connect: ")
}

// dial connects on the calling goroutine.
func (p *Probed) dial(ctx context.Context, limit time.Duration) (net.Conn, error) {
	fd, err := dialPrepared(p.To, unix.SOCK_STREAM, p.clamp)
	if err != nil {
		return nil, err
	}
	if err := waitFor(ctx, fd, unix.POLLOUT, time.Now().Add(limit)); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || n != 0 {
		unix.Close(fd)
		return nil, cmpErr(err, unix.Errno(n))
	}
	f := os.NewFile(uintptr(fd), "probe")
	defer f.Close()
	return net.FileConn(f)
}

// exchange sends bytes and gives the first ones that come back.
func (p *Probed) exchange(ctx context.Context, limit time.Duration, name string, send []byte) ([]byte, error) {
	c, err := p.dial(ctx, limit)
	if err != nil {
		p.Steps = append(p.Steps, "connect: "+err.Error())
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	if len(send) > 0 {
		if _, err := c.Write(send); err != nil {
			p.Steps = append(p.Steps, name+": "+err.Error())
			return nil, err
		}
	}
	b, err := p.readReply(c)
	p.note(name, b, err)
	p.stays(c, b, err)
	return b, err
}

// staysFor is how long a connection is watched that was upgraded: one whose
// service has nobody to hand it to is closed at once.
const staysFor = 150 * time.Millisecond

// stays looks whether a connection whose upgrade was granted is closed at once, by
// TCP or by a WebSocket frame (RFC 6455, 5.5.1).
func (p *Probed) stays(c net.Conn, b []byte, err error) {
	if err != nil || !bytes.HasPrefix(b, []byte("HTTP/1.1 101 ")) {
		return
	}
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(staysFor))
	more, frame := make([]byte, 512), b[end+4:]
	if len(frame) == 0 {
		var n int
		n, err = c.Read(more)
		frame = more[:n]
	}
	const closing = 0x88
	if len(frame) > 0 && frame[0] == closing || len(frame) == 0 && err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		p.Dropped = true
		p.Steps = append(p.Steps, "after the upgrade: closed at once")
	}
}

func (p *Probed) note(name string, b []byte, err error) {
	p.Silent, p.Closed = false, false
	switch {
	case len(b) > 0 && p.Cut > 0:
		p.Steps = append(p.Steps, fmt.Sprintf("%s: %q, and then %d bytes are missing", name, firstLine(b), p.Cut))
	case len(b) > 0:
		p.Steps = append(p.Steps, fmt.Sprintf("%s: %q", name, firstLine(b)))
	case errors.Is(err, os.ErrDeadlineExceeded):
		p.Silent = true
		p.Steps = append(p.Steps, name+": silence")
	default:
		p.Closed = true
		p.Steps = append(p.Steps, name+": closed without a byte")
	}
}

// readReply reads until the header of an HTTP answer is complete and the
// beginning of its body is there, the peer stops, or the deadline comes.
func (p *Probed) readReply(c io.Reader) ([]byte, error) {
	const head, body = 8192, 64 << 10
	p.Cut = 0
	var out []byte
	b := make([]byte, 4096)
	missing := -1 // of the body; -1 while that is not known
	for len(out) < head || missing > 0 {
		n, err := c.Read(b)
		if missing > 0 {
			missing -= n
		}
		if len(out) < head {
			out = append(out, b[:n]...)
		}
		if err != nil {
			if missing > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
				p.Cut = missing
			}
			return out, err
		}
		if !bytes.HasPrefix(out, []byte("HTTP/")[:min(5, len(out))]) {
			break
		}
		if end := bytes.Index(out, []byte("\r\n\r\n")); missing < 0 && end >= 0 {
			_, headers := parseHTTP(out)
			length, err := strconv.Atoi(headers["content-length"])
			if missing = min(length, body) - (len(out) - end - 4); err != nil || missing <= 0 {
				break
			}
		}
		if missing == 0 {
			break
		}
	}
	return out, nil
}

// upgrade sends a WebSocket handshake; true when the answer tells.
func (p *Probed) upgrade(ctx context.Context, t Target, limit time.Duration) bool {
	key := wsKey()
	b, _ := p.exchange(ctx, limit, "WebSocket upgrade", handshake(t, p.To, key))
	return p.judgeHTTP(b, key)
}

// clientHello begins TLS; true when the listener speaks it.
func (p *Probed) clientHello(ctx context.Context, t Target, limit time.Duration, now time.Time) bool {
	c, err := p.dial(ctx, limit)
	if err != nil {
		p.Steps = append(p.Steps, "connect: "+err.Error())
		return true
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	name := t.Host
	// The chain is judged below: what the client trusts is not known here.
	conf := &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS10} //nolint:gosec // a probe, no secret is sent
	if name == "" || t.Addr.IsValid() {
		conf.ServerName = p.To.Addr().String()
	}
	tc := tls.Client(c, conf)
	err = tc.HandshakeContext(ctx)
	var record tls.RecordHeaderError
	var alert tls.AlertError
	switch {
	case err == nil:
	case errors.As(err, &record):
		b := append([]byte(nil), record.RecordHeader[:]...)
		rest := make([]byte, 512)
		if n, _ := c.Read(rest); n > 0 {
			b = append(b, rest[:n]...)
		}
		p.note("TLS ClientHello", b, nil)
		if bytes.HasPrefix(b, []byte("HTTP/")) {
			p.Speaks, p.Answer = SpeaksHTTP, firstLine(b)
		} else {
			p.Speaks, p.Answer = SpeaksOther, firstLine(b)
		}
		return p.Speaks == SpeaksHTTP && !t.WebSocket() // an upgrade may still tell WebSocket from HTTP
	case errors.As(err, &alert):
		p.TLS, p.Speaks, p.TLSAlert, p.Silent = true, SpeaksTLS, alert.Error(), false
		p.Steps = append(p.Steps, "TLS ClientHello: alert: "+alert.Error())
		return true
	default:
		p.note("TLS ClientHello", nil, err)
		return false
	}
	p.TLS, p.Speaks, p.Silent = true, SpeaksTLS, false
	p.Steps = append(p.Steps, "TLS ClientHello: handshake done, "+tls.VersionName(tc.ConnectionState().Version))
	p.certificate(tc.ConnectionState(), t, now)
	if !t.HTTP() {
		return true
	}
	_ = c.SetDeadline(time.Now().Add(limit))
	key := wsKey()
	if _, err := tc.Write(handshake(t, p.To, key)); err != nil {
		p.Steps = append(p.Steps, "request inside TLS: "+err.Error())
		return true
	}
	b, err := p.readReply(tc)
	p.note("request inside TLS", b, err)
	p.stays(tc, b, err)
	p.judgeHTTP(b, key)
	return true
}

func (p *Probed) certificate(s tls.ConnectionState, t Target, now time.Time) {
	if len(s.PeerCertificates) == 0 {
		return
	}
	cert := s.PeerCertificates[0]
	switch {
	case now.After(cert.NotAfter):
		p.Certificate = "expired on " + cert.NotAfter.UTC().Format(time.DateOnly)
	case now.Before(cert.NotBefore):
		p.Certificate = "not valid before " + cert.NotBefore.UTC().Format(time.DateOnly)
	case t.Host != "":
		if err := cert.VerifyHostname(t.Host); err != nil {
			p.Certificate = strings.TrimPrefix(err.Error(), "x509: ")
		}
	}
	pool := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		pool.AddCert(c)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Intermediates: pool, CurrentTime: now}); err != nil && p.Certificate == "" {
		p.Untrusted = true
	}
}

// judgeHTTP reads the answer to a handshake; true when it tells.
func (p *Probed) judgeHTTP(b []byte, key string) bool {
	if len(b) == 0 {
		return false
	}
	p.Answer = firstLine(b)
	status, headers := parseHTTP(b)
	if status == 0 && !bytes.Contains(b, []byte("\n")) && (bytes.HasPrefix(b, []byte("HTTP/")) || bytes.HasPrefix([]byte("HTTP/"), b)) {
		p.Silent, p.slow = true, true // the beginning of an answer that does not go on
		return false
	}
	if status == 0 {
		if len(b) >= 3 && (b[0] == 0x15 || b[0] == 0x16) && b[1] == 3 { // a TLS alert or handshake record
			p.TLS, p.Speaks, p.Answer = true, SpeaksTLS, "TLS alert bytes 15 03"
			return true
		}
		p.Speaks = SpeaksOther
		return true
	}
	p.Status, p.Headers, p.Speaks = status, headers, SpeaksHTTP
	body := strings.ToLower(string(b))
	switch {
	case status == 101:
		p.Upgraded = headers["sec-websocket-accept"] == acceptKey(key)
		p.WrongAccept = !p.Upgraded
		p.Speaks = SpeaksWebSocket
	case strings.Contains(body, "plain http request was sent to https port"), strings.Contains(body, "client sent an http request to an https server"),
		strings.Contains(body, "speaking plain http to an ssl-enabled server port"):
		p.TLS, p.Speaks = true, SpeaksTLS
	case strings.Contains(p.Answer, "200 WebSocket"), status == 426, headers["sec-websocket-version"] != "":
		p.Speaks = SpeaksWebSocket
	}
	return true
}

func parseHTTP(b []byte) (status int, headers map[string]string) {
	headers = map[string]string{}
	if !bytes.HasPrefix(b, []byte("HTTP/1.")) && !bytes.HasPrefix(b, []byte("HTTP/2")) {
		return 0, headers
	}
	r := bufio.NewScanner(bytes.NewReader(b))
	for first := true; r.Scan(); first = false {
		line := r.Text()
		if first {
			f := strings.Fields(line)
			if len(f) < 2 {
				return 0, headers
			}
			n, err := strconv.Atoi(f[1])
			if err != nil || n < 100 || n > 599 {
				return 0, headers
			}
			status = n
			continue
		}
		k, v, ok := strings.Cut(line, ":")
		if !ok {
			break
		}
		headers[strings.ToLower(strings.TrimSpace(k))] = strings.TrimSpace(v)
	}
	return status, headers
}

func wsKey() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	return base64.StdEncoding.EncodeToString(b)
}

// acceptKey is RFC 6455 §4.2.2.
func acceptKey(key string) string {
	h := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // the RFC's
	return base64.StdEncoding.EncodeToString(h[:])
}

// handshake is the least request that tells: for a WebSocket or unknown target
// an upgrade, for an HTTP one a plain request.
func handshake(t Target, to netip.AddrPort, key string) []byte {
	path, host := t.Path, t.HostPort()
	if path == "" {
		path = "/"
	}
	if t.Host == "" {
		host = to.String()
	}
	head := "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: hostaudit\r\n"
	if t.Scheme == "http" || t.Scheme == "https" {
		return []byte(head + "Connection: close\r\n\r\n")
	}
	return []byte(head + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\n\r\n")
}

// banner names protocols whose server speaks first.
func banner(b []byte) string {
	s := string(b)
	switch {
	case strings.HasPrefix(s, "SSH-"):
		return "ssh"
	case len(b) > 5 && b[3] == 0 && (b[4] == 10 || b[4] == 9 || b[4] == 0xff):
		return "mysql"
	case strings.HasPrefix(s, "220") && strings.Contains(strings.ToUpper(s), "SMTP"):
		return "smtp"
	case strings.HasPrefix(s, "220"):
		return "ftp"
	case strings.HasPrefix(s, "+OK"):
		return "pop3"
	case strings.HasPrefix(s, "* OK"):
		return "imap"
	}
	return ""
}

func firstLine(b []byte) string {
	if i := bytes.IndexAny(b, "\r\n"); i >= 0 {
		b = b[:i]
	}
	if len(b) > 120 {
		b = b[:120]
	}
	if !utf8.Valid(b) {
		return fmt.Sprintf("% x", b[:min(len(b), 16)])
	}
	return string(b)
}
