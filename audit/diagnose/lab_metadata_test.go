package diagnose_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// imds is a network namespace with a provider's metadata service. Every address at
// which one listens leads there, and its rules count what comes.
func imds(t *testing.T, f *field, handle func(net.Conn)) *lab.Namespace {
	t.Helper()
	n := f.lab.Add(t, "imds")
	p := netip.MustParsePrefix
	f.lab.Join(t, lab.End{In: f.server, Interface: "eth9", Addrs: []netip.Prefix{p("169.254.1.1/16")}}, lab.End{In: n, Interface: "eth0", Addrs: []netip.Prefix{p("169.254.169.254/16"), p("169.254.0.23/16"), p("100.100.100.200/32")}})
	ip(t, f.server, "route add 100.100.100.200/32 dev eth9")
	n.Load(t, lab.NFT, "table inet c { chain i { type filter hook input priority 0; tcp dport 80 counter; }; }")
	n.Serve(t, "tcp", "0.0.0.0:80", handle)
	return n
}

// asked is how many packets came to the metadata service.
func asked(t *testing.T, n *lab.Namespace) int {
	t.Helper()
	out := n.Run(t, "nft", "list", "chain", "inet", "c", "i")
	_, rest, ok := strings.Cut(string(out), "counter packets ")
	count := 0
	if _, err := fmt.Sscan(rest, &count); !ok || err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return count
}

// provider answers as the documentation of a metadata service has it, and only to
// who asks as it says.
func provider(name string) http.HandlerFunc {
	const token = "AQAEANJ0kTc=="
	granted := func(w http.ResponseWriter, r *http.Request, ttl, header string) bool {
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" && r.Header.Get(ttl) != "":
			_, _ = io.WriteString(w, token)
		case r.Header.Get(header) != token:
			w.WriteHeader(http.StatusUnauthorized)
		default:
			return true
		}
		return false
	}
	says := func(w http.ResponseWriter, r *http.Request, answers map[string]string) {
		text, ok := answers[r.URL.RequestURI()]
		if !ok || r.Method != http.MethodGet {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, text)
	}
	return func(w http.ResponseWriter, r *http.Request) {
		switch name {
		case "AWS":
			if granted(w, r, "X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "X-Aws-Ec2-Metadata-Token") {
				says(w, r, map[string]string{"/latest/meta-data/public-ipv4": serverIP, "/latest/meta-data/security-groups": "web-sg\nlaunch-wizard-1"})
			}
		case "AWS, version 1":
			says(w, r, map[string]string{"/latest/meta-data/public-ipv4": serverIP, "/latest/meta-data/security-groups": "web-sg"})
		case "Alibaba Cloud":
			if granted(w, r, "X-Aliyun-Ecs-Metadata-Token-Ttl-Seconds", "X-Aliyun-Ecs-Metadata-Token") {
				says(w, r, map[string]string{"/latest/meta-data/eipv4": serverIP})
			}
		case "Google Cloud":
			if r.Header.Get("Metadata-Flavor") != "Google" || r.Host != "metadata.google.internal" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			says(w, r, map[string]string{"/computeMetadata/v1/instance/network-interfaces/0/access-configs/0/external-ip": serverIP})
		case "Azure":
			if r.Header.Get("Metadata") != "true" || r.URL.Query().Get("api-version") == "" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			says(w, r, map[string]string{"/metadata/instance/network/interface/0/ipv4/ipAddress/0/publicIpAddress?api-version=2021-02-01&format=text": serverIP})
		case "Tencent Cloud", "Huawei Cloud":
			says(w, r, map[string]string{"/latest/meta-data/public-ipv4": serverIP})
		case "DigitalOcean":
			says(w, r, map[string]string{"/metadata/v1/interfaces/public/0/ipv4/address": serverIP})
		case "Hetzner":
			says(w, r, map[string]string{"/hetzner/v1/metadata/public-ipv4": serverIP})
		}
	}
}

// httpConn serves one connection.
func httpConn(h http.Handler) func(net.Conn) {
	return func(c net.Conn) {
		done := make(chan struct{})
		l := &oneConn{c: c, done: done}
		_ = (&http.Server{Handler: h, ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed || s == http.StateHijacked {
				close(done)
			}
		}}).Serve(l)
	}
}

type oneConn struct {
	c    net.Conn
	done chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.c; c != nil {
		l.c = nil
		return c, nil
	}
	<-l.done
	return nil, io.EOF
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// behindNAT gives the server a private address; clients reach it by serverIP,
// which it does not have itself.
func behindNAT(t *testing.T, f *field) {
	t.Helper()
	ip(t, f.server, "address add 10.20.0.5/24 dev eth0")
	ip(t, f.server, "address del "+serverIP+"/24 dev eth0")
	ip(t, f.router, "address add 10.20.0.1/24 dev out")
	ip(t, f.server, "route replace default via 10.20.0.1")
	f.router.Load(t, lab.NFT, "table ip n { chain p { type nat hook prerouting priority -100; ip daddr "+serverIP+" dnat to 10.20.0.5; }; }")
	serves(t, f)
}

var firmware = map[string]string{
	"AWS": "sys_vendor=Amazon EC2", "AWS, version 1": "sys_vendor=Amazon EC2", "Alibaba Cloud": "sys_vendor=Alibaba Cloud", "Google Cloud": "product_name=Google Compute Engine",
	"Azure": "chassis_asset_tag=7783-7084-3265-9085-8269-3286-77", "Tencent Cloud": "sys_vendor=Tencent Cloud", "Huawei Cloud": "sys_vendor=Huawei Cloud",
	"DigitalOcean": "sys_vendor=DigitalOcean", "Hetzner": "sys_vendor=Hetzner",
}

func setFirmware(t *testing.T, f *field, cloud string) {
	t.Helper()
	key, value, _ := strings.Cut(firmware[cloud], "=")
	write(t, f.serverRoot, "sys/class/dmi/id/"+key, value+"\n")
}

// TestMetadata: the provider's metadata service tells the address that the host
// does not know, when it is asked, and nothing is sent to it when it is not.
func TestMetadata(t *testing.T) {
	t.Parallel()
	for cloud := range firmware {
		t.Run(cloud, func(t *testing.T) {
			t.Parallel()
			f := newField(t)
			behindNAT(t, f)
			setFirmware(t, f, cloud)
			n := imds(t, f, httpConn(provider(cloud)))
			clear_(t, f.ask(t, onClient, target, diagnose.Options{}), onClient) // the translation works

			r := f.ask(t, onServer, target, diagnose.Options{})
			if c := r.Cause(diagnose.WrongAddress); c.Verdict != diagnose.CannotTell {
				t.Errorf("without leave the address is %s\n%s", c.Verdict, text(t, r))
			}
			f.ask(t, onServer, target, diagnose.Options{Probe: true})
			if count := asked(t, n); count != 0 {
				t.Fatalf("%d packets went to the metadata service without leave", count)
			}
			r = f.ask(t, onServer, target, diagnose.Options{Metadata: true})
			if count := asked(t, n); count == 0 {
				t.Fatal("no packet went there with leave: the counter counts nothing")
			}
			if c := r.Cause(diagnose.WrongAddress); c.Verdict != diagnose.RuledOut {
				t.Errorf("the address is %s although the provider names it\n%s", c.Verdict, text(t, r))
			}
			keep(t, cloud, r)
			if strings.HasPrefix(cloud, "AWS") {
				r = f.ask(t, onServer, target, diagnose.Options{Metadata: true, Message: "Connection timed out", From: netip.MustParseAddr(clientIP)})
				blames(t, r, onServer, diagnose.CloudGroup, diagnose.Likely)
				if !strings.Contains(flat(t, r), "security group web-sg") {
					t.Errorf("the group is not named:\n%s", text(t, r))
				}
				keep(t, cloud+" timeout", r)
			}
			// Another address than the one that the provider names is somebody else's.
			r = f.ask(t, onServer, "tcp://198.51.100.77:8080", diagnose.Options{Metadata: true})
			blames(t, r, onServer, diagnose.WrongAddress, diagnose.Confirmed)
		})
	}
	long := strings.Repeat("sg\n", 1<<20)
	for _, c := range []struct {
		name   string
		handle func(net.Conn)
		says   string // in the list of what could not be read
	}{
		{"it hangs", silent, "no answer within 1s"},
		{"it hangs after the token", func(c net.Conn) {
			b := make([]byte, 4096)
			if n, _ := c.Read(b); strings.HasPrefix(string(b[:n]), "PUT") {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
				return
			}
			silent(c)
		}, "no answer within 1s"},
		{"it closes", func(net.Conn) {}, "ask 169.254.169.254:80"},
		{"it refuses", answers(403), "status 403"},
		{"it redirects", answers(302, "Location: http://203.0.113.10/"), "status 302"},
		{"it is not HTTP", banner("SSH-2.0-x\r\n"), "the answer is no HTTP"},
		{"it sends without end", func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			for {
				if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"+long); err != nil {
					return
				}
			}
		}, "it names no public address"},
		{"it names what is no public address", httpConn(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "127.0.0.1 10.0.0.1 ::1 fe80::1 0.0.0.0 224.0.0.1 \x1b[31mred\r\nX-Evil: 1")
		})), "it names no public address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newField(t)
			behindNAT(t, f)
			setFirmware(t, f, "AWS")
			imds(t, f, c.handle)
			began := time.Now()
			r := f.ask(t, onServer, target, diagnose.Options{Metadata: true})
			if d := time.Since(began); d > 15*time.Second {
				t.Errorf("it took %s", d)
			}
			if x := r.Cause(diagnose.WrongAddress); x.Verdict != diagnose.CannotTell {
				t.Errorf("the address is %s\n%s", x.Verdict, text(t, r))
			}
			s := text(t, r)
			if !strings.Contains(strings.Join(strings.Fields(s), " "), c.says) || strings.ContainsRune(s, '\x1b') || len(s) > 20000 {
				t.Errorf("no %q in %d bytes\n%s", c.says, len(s), s[:min(len(s), 20000)])
			}
			keep(t, c.name, r)
		})
	}
	t.Run("nobody is there", func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		behindNAT(t, f)
		setFirmware(t, f, "AWS")
		r := f.ask(t, onServer, target, diagnose.Options{Metadata: true})
		if x := r.Cause(diagnose.WrongAddress); x.Verdict != diagnose.CannotTell || !strings.Contains(flat(t, r), "metadata of AWS") {
			t.Errorf("%s\n%s", x.Verdict, text(t, r))
		}
	})
}
