package diagnose_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// A situation is something that goes wrong for a client of the field.
type situation struct {
	name string
	sees diagnose.Sees
	// http is a URL that meets it; host and port for programs without URLs, "" where
	// it takes HTTP or TLS to meet it.
	http, host, port string
}

// situations are made for real in a field.
func situations(t *testing.T, f *field) []situation {
	t.Helper()
	f.server.Load(t, lab.NFT, "table inet f { chain i { type filter hook input priority 0; tcp dport 8002 drop; tcp dport 8003 reject with icmpx type admin-prohibited; ip protocol tcp tcp dport 8004 reject with icmp type host-unreachable; }; }")
	f.server.Serve(t, "tcp", "0.0.0.0:8005", func(net.Conn) {})
	f.server.Serve(t, "tcp", "0.0.0.0:8006", func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.(*net.TCPConn).SetLinger(0)
	})
	f.server.Serve(t, "tcp", "0.0.0.0:8007", banner("SSH-2.0-OpenSSH_9.2\r\n"))
	f.server.Serve(t, "tcp", "0.0.0.0:8008", answers(200))
	f.server.Serve(t, "tcp", "0.0.0.0:8009", inTLS(t, "other.example.com", time.Now().Add(time.Hour), answers(200)))
	f.server.Serve(t, "tcp", "0.0.0.0:8010", silent)
	// Every local port towards 8011 is in use.
	f.listen(t, f.server, "0.0.0.0:8011")
	f.client.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 40019")
	fds, err := dialFrom(t, f.client, diagnose.Options{}.Source, false, times(21, serverIP+":8011")...)
	t.Cleanup(func() { closeAll(fds) })
	if err != unix.EADDRNOTAVAIL {
		t.Fatalf("the local ports do not run out: %v", err)
	}
	at := func(port string) string { return "http://" + serverIP + ":" + port + "/" }
	return []situation{
		{"refused", diagnose.Refused, at("8001"), serverIP, "8001"},
		{"timeout", diagnose.Timeout, at("8002"), serverIP, "8002"},
		{"unreachable", diagnose.Unreachable, at("8004"), serverIP, "8004"},
		{"no address", diagnose.CannotAssign, at("8011"), serverIP, "8011"},
		{"no name", diagnose.NoName, "http://nowhere.invalid:8001/", "nowhere.invalid", "8001"},
		{"closed", diagnose.ProtocolError, at("8005"), "", ""},
		{"reset", diagnose.ProtocolError, at("8006"), "", ""},
		{"no HTTP", diagnose.ProtocolError, at("8007"), "", ""},
		{"TLS to plain", diagnose.ProtocolError, "https://" + serverIP + ":8008/", "", ""},
		{"certificate", diagnose.ProtocolError, "https://" + serverIP + ":8009/", "", ""},
		{"silence", diagnose.ProtocolError, at("8010"), "", ""},
	}
}

// says runs a program in the client's namespace and gives what it prints.
func says(t *testing.T, f *field, argv ...string) string {
	t.Helper()
	return saysIn(t, f.client, argv...)
}

// saysIn is says in any namespace.
func saysIn(t *testing.T, n *lab.Namespace, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = t.TempDir()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, time.Second
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "LC_ALL=C.UTF-8"}
	if err := n.Start(cmd); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // that it fails is the point
	return out.String()
}

// TestRealMessages: what clients print in each situation is understood.
func TestRealMessages(t *testing.T) {
	t.Parallel()
	f := newField(t)
	machineResolver(t, f)
	f.client.Sysctl(t, "net.ipv4.tcp_syn_retries", "1") // 3 s, where a program has no deadline of its own
	all := situations(t, f)
	hold := func(t *testing.T, s situation, message string) {
		t.Helper()
		got := diagnose.ParseError(message)
		if message = strings.TrimSpace(message); got.Sees != s.sees && !slices.Contains(got.Also, s.sees) {
			t.Errorf("%s: %q is understood as %q (%s), want %s", s.name, message, got.Sees, got.Kind, s.sees)
		}
		if os.Getenv("LAB_MESSAGES") != "" {
			fmt.Printf("%-14s %-24s %q\n", s.name, got.Kind, message)
		}
	}
	// programs are given the URL, or host and port.
	for _, p := range []struct {
		name, need string
		argv       func(s situation) []string
		raw        bool // only a connection is made
		never      string
	}{
		{name: "curl", need: "curl", argv: func(s situation) []string { return []string{"curl", "-sS", "-m", "2", s.http} }},
		{name: "curl, with a deadline of its own for connections", need: "curl", argv: func(s situation) []string {
			return []string{"curl", "-sS", "-v", "--connect-timeout", "3", "-m", "6", s.http}
		}},
		{name: "wget", need: "wget", argv: func(s situation) []string { return []string{"wget", "-t", "1", "-T", "2", "-O", "-", s.http} }, never: "no HTTP"}, // it takes that for a page
		{name: "python, urllib", need: "python3", argv: func(s situation) []string {
			return []string{"python3", "-c", "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=2)", s.http}
		}},
		{name: "python, http.client", need: "python3", argv: func(s situation) []string {
			return []string{"python3", "-c", `import sys, http.client, urllib.parse
u = urllib.parse.urlsplit(sys.argv[1])
c = (http.client.HTTPSConnection if u.scheme == "https" else http.client.HTTPConnection)(u.hostname, u.port, timeout=2)
c.request("GET", "/"); c.getresponse()`, s.http}
		}},
		{name: "python, asyncio", need: "python3", raw: true, argv: func(s situation) []string {
			return []string{"python3", "-c", "import sys, asyncio; asyncio.run(asyncio.open_connection(sys.argv[1], int(sys.argv[2])))", s.host, s.port}
		}},
		{name: "python, socket", need: "python3", raw: true, argv: func(s situation) []string {
			return []string{"python3", "-c", "import sys, socket; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)", s.host, s.port}
		}},
		{name: "php, file_get_contents", need: "php", argv: func(s situation) []string {
			return []string{"php", "-r", `ini_set("default_socket_timeout", 2); file_get_contents($argv[1]);`, s.http}
		}, never: "silence"}, // it says nothing
		{name: "php, stream_socket_client", need: "php", raw: true, argv: func(s situation) []string {
			return []string{"php", "-r", `stream_socket_client("tcp://$argv[1]:$argv[2]", $no, $text, 2); echo $text;`, s.host, s.port}
		}},
		{name: "php, fsockopen", need: "php", raw: true, argv: func(s situation) []string {
			return []string{"php", "-r", `if (!@fsockopen($argv[1], $argv[2], $no, $text, 2)) echo "$text ($no)";`, s.host, s.port}
		}},
		{name: "node, http", need: "node", argv: func(s situation) []string {
			return []string{"node", "-e", `const u = process.argv[1]; const r = require(u.startsWith("https") ? "https" : "http").get(u, {timeout: 2000}, x => x.resume()); r.on("timeout", () => r.destroy(new Error(r.socket.connecting ? "connect ETIMEDOUT" : "ESOCKETTIMEDOUT")))`, s.http}
		}},
		{name: "node, net", need: "node", raw: true, argv: func(s situation) []string {
			return []string{"node", "-e", `require("net").connect(+process.argv[2], process.argv[1])`, s.host, s.port}
		}},
		{name: "node, fetch", need: "node", argv: func(s situation) []string {
			return []string{"node", "-e", `fetch(process.argv[1], {signal: AbortSignal.timeout(20000)}).catch(e => console.log(e, e.cause))`, s.http}
		}, never: "silence no address closed"}, // it tries for longer, and again
		{name: "bash", need: "bash", raw: true, argv: func(s situation) []string {
			return []string{"bash", "-c", "exec 3<>/dev/tcp/$0/$1", s.host, s.port}
		}},
		{name: "psql", need: "psql", raw: true, argv: func(s situation) []string {
			return []string{"psql", "host=" + s.host + " port=" + s.port + " connect_timeout=2 user=x"}
		}},
		{name: "ssh", need: "ssh", raw: true, argv: func(s situation) []string {
			return []string{"ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=2", "-o", "StrictHostKeyChecking=no", "-p", s.port, "x@" + s.host}
		}},
		{name: "perl", need: "perl", raw: true, argv: func(s situation) []string {
			return []string{"perl", "-MIO::Socket::INET", "-e", `IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1], Timeout => 2) or die "$@\n"`, s.host, s.port}
		}, never: "unreachable"}, // "Operation already in progress", which is wrong
	} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			lab.Need(t, p.need)
			for _, s := range all {
				if p.raw && s.host == "" || strings.Contains(p.never, s.name) {
					continue
				}
				hold(t, s, says(t, f, p.argv(s)...))
			}
		})
	}
	t.Run("go", func(t *testing.T) {
		t.Parallel()
		for _, s := range all {
			dialer := func(ctx context.Context, network, to string) (c net.Conn, err error) {
				f.client.Do(func() { c, err = (&net.Dialer{}).DialContext(ctx, network, to) })
				return c, err
			}
			k := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DialContext: dialer, DisableKeepAlives: true}}
			r, err := k.Get(s.http)
			if err == nil {
				r.Body.Close()
				t.Errorf("%s: no error", s.name)
				continue
			}
			hold(t, s, err.Error())
		}
	})
	compiled := func(t *testing.T, compiler, file, source string, build, run []string, never string) {
		t.Parallel()
		lab.Need(t, compiler)
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, file), []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(build[0], build[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if !filepath.IsAbs(run[0]) && strings.HasPrefix(run[0], "./") {
			run[0] = filepath.Join(dir, run[0])
		}
		for i := range run {
			run[i] = strings.ReplaceAll(run[i], "DIR", dir)
		}
		var urls []string
		for _, s := range all {
			urls = append(urls, s.http)
		}
		var messages []string
		text := says(t, f, append(run, urls...)...)
		for line := range strings.Lines(text) {
			var m string
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatalf("%v in %q", err, text)
			}
			messages = append(messages, m)
		}
		if len(messages) != len(all) {
			t.Fatalf("%d messages in %q", len(messages), text)
		}
		for i, s := range all {
			if !strings.Contains(never, s.name) {
				hold(t, s, messages[i])
			}
		}
	}
	t.Run("java", func(t *testing.T) {
		compiled(t, "javac", "Get.java", `
import java.net.*;
class Get {
	public static void main(String[] urls) {
		for (String u : urls) {
			String m = "fine";
			try {
				URLConnection c = new URL(u).openConnection();
				c.setConnectTimeout(2000); c.setReadTimeout(2000);
				c.getInputStream().read();
			} catch (Exception e) { m = e.toString(); }
			System.out.println("\"" + m.replace("\\", "").replace("\"", "'").replace("\n", " ") + "\"");
		}
	}
}`, []string{"javac", "Get.java"}, []string{"java", "-Xshare:auto", "-cp", "DIR", "Get"}, "")
	})
	t.Run("java, HttpClient", func(t *testing.T) {
		compiled(t, "javac", "Ask.java", `
import java.net.URI;
import java.net.http.*;
import java.time.Duration;
class Ask {
	public static void main(String[] urls) {
		HttpClient k = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).connectTimeout(Duration.ofSeconds(10)).build();
		for (String u : urls) {
			String m = "fine";
			try {
				k.send(HttpRequest.newBuilder(URI.create(u)).timeout(Duration.ofSeconds(12)).build(), HttpResponse.BodyHandlers.ofString());
			} catch (Throwable e) {
				m = e.toString();
				for (Throwable c = e.getCause(); c != null; c = c.getCause()) m += " Caused by: " + c;
			}
			System.out.println("\"" + m.replace("\\", "").replace("\"", "'").replace("\n", " ") + "\"");
		}
		System.exit(0);
	}
}`, []string{"javac", "Ask.java"}, []string{"java", "-Xshare:auto", "-cp", "DIR", "Ask"}, "")
	})
	t.Run("rust", func(t *testing.T) {
		compiled(t, "rustc", "get.rs", `
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;
fn get(u: &str) -> std::io::Result<()> {
	let host = u.split("://").nth(1).unwrap().trim_end_matches('/');
	let to = host.to_socket_addrs()?.next().unwrap();
	let mut c = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
	c.set_read_timeout(Some(Duration::from_secs(2)))?;
	c.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
	c.read_exact(&mut [0; 1000])
}
fn main() {
	for u in std::env::args().skip(1) {
		let m = match get(&u) { Ok(()) => "fine".to_string(), Err(e) => e.to_string() };
		println!("{:?}", m);
	}
}`, []string{"rustc", "get.rs"}, []string{"./get"}, "no HTTP TLS to plain certificate")
	})
}
