package diagnose_test

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// zone is what a name server of the laboratory knows: of a name without its last
// dot, addresses, an alias ("= other.name"), or a failure ("!SERVFAIL",
// "!REFUSED", "!silence", "!truncated" before addresses; "!SERVFAIL/AAAA" for one
// family). Other names do not exist.
type zone struct {
	mu    sync.Mutex
	names map[string]string
}

func (z *zone) set(name, value string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if value == "" {
		delete(z.names, name)
		return
	}
	z.names[name] = value
}

func (z *zone) get(name string) (string, bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	v, ok := z.names[strings.ToLower(strings.TrimSuffix(name, "."))]
	return v, ok
}

// resolver serves a zone over UDP and TCP.
func resolver(t *testing.T, n *lab.Namespace, addr string, names map[string]string) *zone {
	t.Helper()
	z := &zone{names: names}
	z.serve(t, n, addr)
	return z
}

func (z *zone) serve(t *testing.T, n *lab.Namespace, addr string) {
	t.Helper()
	var pc net.PacketConn
	var l net.Listener
	var err error
	n.Do(func() {
		if pc, err = net.ListenPacket("udp", addr); err == nil {
			l, err = net.Listen("tcp", addr)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close(); l.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if out := z.answer(b[:n], false); out != nil {
				_, _ = pc.WriteTo(out, from)
			}
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var size [2]byte
			if _, err := io.ReadFull(c, size[:]); err == nil {
				b := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(c, b); err == nil {
					out := z.answer(b, true)
					_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
				}
			}
			c.Close()
		}
	}()
}

// answer is written with another library than the one under test reads with.
func (z *zone) answer(query []byte, tcp bool) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	value, ok := z.get(q.Name.String())
	for alias := q.Name; ok && strings.HasPrefix(value, "="); {
		to := dnsmessage.MustNewName(strings.TrimSpace(value[1:]) + ".")
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: alias, Class: dnsmessage.ClassINET, TTL: 60}, Body: &dnsmessage.CNAMEResource{CNAME: to}})
		alias = to
		q.Name = to
		value, ok = z.get(to.String())
	}
	for _, word := range strings.Fields(value) {
		if fault, family, ok := strings.Cut(word, "/"); ok { // of one family alone
			if (family == "AAAA") != (q.Type == dnsmessage.TypeAAAA) {
				continue
			}
			word = fault
		}
		switch word {
		case "!": // it exists, without addresses
		case "!silence":
			return nil
		case "!SERVFAIL":
			m.RCode = dnsmessage.RCodeServerFailure
		case "!REFUSED":
			m.RCode = dnsmessage.RCodeRefused
		case "!truncated":
			if !tcp {
				m.Truncated = true
				out, _ := m.Pack()
				return out
			}
		default:
			a := netip.MustParseAddr(word)
			h := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 60}
			if a.Is4() && q.Type == dnsmessage.TypeA {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
			} else if a.Is6() && q.Type == dnsmessage.TypeAAAA {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
			}
		}
	}
	if !ok {
		m.RCode = dnsmessage.RCodeNameError
	}
	out, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return out
}
