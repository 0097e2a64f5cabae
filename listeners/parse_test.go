package listeners

import (
	"encoding/binary"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostaudit/hostaudit/listeners/sockdiag"
)

const hexID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestCgroupPaths(t *testing.T) {
	for _, c := range []struct {
		cgroup, unit string
		container    *Container
	}{
		{"0::/\n", "", nil},
		{"0::/system.slice/nginx.service\n", "nginx.service", nil},
		{"0::/system.slice/system-php.slice/php@8.2.service\n", "php@8.2.service", nil},
		{"0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service\n", "user@1000.service/web.service", nil},
		{"0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope", nil},
		{"0::/init.scope\n", "init.scope", nil},
		{"12:pids:/x\n1:name=systemd:/system.slice/sshd.service\n0::/\n", "sshd.service", nil},
		{"0::/system.slice/docker-" + hexID + ".scope\n", "docker-" + hexID + ".scope", &Container{Runtime: "docker", ID: hexID}},
		{"4:memory:/docker/" + hexID + "\n1:name=systemd:/docker/" + hexID + "\n", "", &Container{Runtime: "docker", ID: hexID}},
		{"0::/system.slice/docker.service\n", "docker.service", nil},
		{"0::/machine.slice/libpod-" + hexID + ".scope/container\n", "libpod-" + hexID + ".scope", &Container{Runtime: "podman", ID: hexID}},
		{"0::/machine.slice/libpod-conmon-" + hexID + ".scope\n", "libpod-conmon-" + hexID + ".scope", nil},
		{"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12345678_1234_1234_1234_123456789abc.slice/cri-containerd-" + hexID + ".scope\n",
			"cri-containerd-" + hexID + ".scope", &Container{Runtime: "containerd", ID: hexID, Pod: "12345678-1234-1234-1234-123456789abc"}},
		{"0::/kubepods/besteffort/pod12345678-1234-1234-1234-123456789abc/" + hexID + "\n",
			"", &Container{Runtime: "kubernetes", ID: hexID, Pod: "12345678-1234-1234-1234-123456789abc"}},
		{"0::/kubepods.slice/kubepods-pod12345678_1234_1234_1234_123456789abc.slice/crio-" + hexID + ".scope\n",
			"crio-" + hexID + ".scope", &Container{Runtime: "cri-o", ID: hexID, Pod: "12345678-1234-1234-1234-123456789abc"}},
		{"0::/lxc.payload.web1/system.slice/nginx.service\n", "nginx.service", &Container{Runtime: "lxc", ID: "web1"}},
		{"0::/machine.slice/systemd-nspawn@db.service/payload\n", "systemd-nspawn@db.service", &Container{Runtime: "nspawn", ID: "db"}},
		{"0::/system.slice/nerdctl-" + hexID + ".scope\n", "nerdctl-" + hexID + ".scope", &Container{Runtime: "containerd", ID: hexID}},
	} {
		path, err := parseCgroup([]byte(c.cgroup))
		if err != nil {
			t.Errorf("%q: %v", c.cgroup, err)
			continue
		}
		if got := unitOf(path); got != c.unit {
			t.Errorf("%q: unit %q, want %q", c.cgroup, got, c.unit)
		}
		if diff := cmp.Diff(c.container, containerOf(path)); diff != "" {
			t.Errorf("%q: %s", c.cgroup, diff)
		}
	}
	for _, bad := range []string{"", "nonsense\n"} {
		if _, err := parseCgroup([]byte(bad)); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

// A process may call itself anything.
func TestParseStatHostileName(t *testing.T) {
	line := "42 (a) R 1 2) S 1 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 2 3\n"
	comm, start, err := parseStat([]byte(line))
	if err != nil || comm != "a) R 1 2" || start != 987654 {
		t.Errorf("%q %d %v", comm, start, err)
	}
}

func TestParseLimits(t *testing.T) {
	soft, hard, err := parseLimits([]byte("Limit  Soft Limit Hard Limit Units\nMax open files            1024                 unlimited            files     \n"))
	if err != nil || soft != 1024 || hard != unlimited {
		t.Errorf("%d %d %v", soft, hard, err)
	}
	if _, _, err := parseLimits([]byte("Max processes 1 1\n")); err == nil {
		t.Error("no line for open files accepted")
	}
}

func TestHostTextKeepsBytes(t *testing.T) {
	for _, want := range []HostText{"", "plain", "a\x00b\n\u001b[31m", "bad \xff\xfe", `{"base64":"x"}`} {
		b, err := want.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var got HostText
		if err := got.UnmarshalJSON(b); err != nil || got != want {
			t.Errorf("%q → %s → %q, %v", want, b, got, err)
		}
	}
}

func TestScopeOfAddresses(t *testing.T) {
	locals := []Local{
		{Prefix: netip.MustParsePrefix("10.0.0.5/32"), Broadcast: netip.MustParseAddr("10.0.0.255")},
		{Prefix: netip.MustParsePrefix("2001:db8::5/128")},
		{Prefix: netip.MustParsePrefix("192.0.2.0/24")}, // AnyIP
	}
	for _, c := range []struct {
		sock       Socket
		kind       ScopeKind
		ipv4, ipv6 bool
		addrs      int
	}{
		{Socket{Local: netip.MustParseAddrPort("10.0.0.5:1")}, ScopeAddress, true, false, 1},
		{Socket{Local: netip.MustParseAddrPort("10.0.0.6:1")}, ScopeAbsent, true, false, 0},
		{Socket{Local: netip.MustParseAddrPort("192.0.2.77:1")}, ScopeAddress, true, false, 1},
		{Socket{Local: netip.MustParseAddrPort("[2001:db8::5]:1")}, ScopeAddress, false, true, 1},
		{Socket{Local: netip.MustParseAddrPort("[::ffff:10.0.0.5]:1")}, ScopeAddress, true, false, 1},
		{Socket{Local: netip.MustParseAddrPort("[::ffff:0.0.0.0]:1")}, ScopeAnyV4, true, false, 2},
		{Socket{Local: netip.MustParseAddrPort("10.0.0.255:1")}, ScopeGroup, true, false, 1},
		{Socket{Local: netip.MustParseAddrPort("127.9.9.9:1")}, ScopeLoopback, true, false, 1},
		{Socket{Local: netip.MustParseAddrPort("[::]:1")}, ScopeAnyDual, true, true, 3},
		{Socket{Local: netip.MustParseAddrPort("[::]:1"), V6Only: true}, ScopeAnyV6Only, false, true, 1},
		{Socket{Local: netip.MustParseAddrPort("[::]:1"), Untold: []string{FactV6Only}}, ScopeAnyV6Unclear, true, true, 3},
		{Socket{Local: netip.MustParseAddrPort("10.0.0.5:1"), Locals: []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.9.9.9")}}, ScopeAddress, true, false, 1},
	} {
		got := c.sock.Scope(locals)
		if got.Kind != c.kind || got.IPv4 != c.ipv4 || got.IPv6 != c.ipv6 || len(got.Addrs) != c.addrs {
			t.Errorf("%s: %+v", c.sock.Local, got)
		}
	}
	// Where the host's addresses are not known, none is called absent.
	s := Socket{Local: netip.MustParseAddrPort("10.0.0.6:1")}
	if got := s.Scope(nil).Kind; got != ScopeAddress {
		t.Errorf("addresses unknown: %q", got)
	}
}

func TestParseSCTPEndpoints(t *testing.T) {
	text := " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n" +
		"       0        0 2   10  31   36412     0 4242 10.0.0.1 2001:db8::1 \n" +
		"       0        0 2   10  31   36413     0 4243 0.0.0.0 \n" +
		"       0        0 2   7   31   36414     0 4244 10.0.0.1 \n"
	got, err := parseSCTPEndpoints([]byte(text))
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got[0].Local != netip.MustParseAddrPort("10.0.0.1:36412") || len(got[0].Locals) != 2 || got[0].Inode != 4242 || got[1].Locals != nil {
		t.Errorf("%+v", got)
	}
}

// The text decoders take any bytes without panicking; what they accept is sane.
func fuzzText(f *testing.F, seeds []string, parse func(t *testing.T, b []byte)) {
	for _, path := range seeds {
		if b, err := os.ReadFile(path); err == nil {
			f.Add(b)
		}
	}
	f.Add([]byte(""))
	f.Add([]byte("\n"))
	f.Fuzz(parse)
}

func FuzzNetTable(f *testing.F) {
	f.Add([]byte("  sl  local\n   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000003 00:00000000 00000000  1000        0 33 1 0 100\n"))
	fuzzText(f, []string{"/proc/net/tcp", "/proc/net/udp6", "/proc/net/raw"}, func(t *testing.T, b []byte) {
		for _, proto := range []Proto{TCP, UDP} {
			socks, _ := parseNetTable(b, proto, 1<<sockdiag.Listen|1<<sockdiag.Close, binary.LittleEndian)
			for _, s := range socks {
				if !s.Local.IsValid() || s.Tells(FactLimit) {
					t.Errorf("%+v", s)
				}
			}
		}
	})
}

func FuzzSCTPEndpoints(f *testing.F) {
	f.Add([]byte(" ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n 0 0 2 10 31 36412 0 4242 10.0.0.1\n"))
	fuzzText(f, nil, func(t *testing.T, b []byte) { parseSCTPEndpoints(b) })
}

func FuzzProtocols(f *testing.F) {
	fuzzText(f, []string{"/proc/net/protocols"}, func(t *testing.T, b []byte) {
		if m, err := parseProtocols(b); err == nil && len(m) == 0 {
			t.Error("no protocols and no error")
		}
	})
}

func FuzzStat(f *testing.F) {
	fuzzText(f, []string{"/proc/self/stat"}, func(t *testing.T, b []byte) { parseStat(b) })
}

func FuzzLimits(f *testing.F) {
	fuzzText(f, []string{"/proc/self/limits"}, func(t *testing.T, b []byte) { parseLimits(b) })
}

func FuzzCgroup(f *testing.F) {
	f.Add([]byte("0::/kubepods/pod12345678/" + hexID + "\n"))
	fuzzText(f, []string{"/proc/self/cgroup"}, func(t *testing.T, b []byte) {
		path, err := parseCgroup(b)
		if err != nil {
			return
		}
		if u := unitOf(path); u != "" && !strings.Contains(path, u[strings.LastIndexByte(u, '/')+1:]) {
			t.Errorf("unit %q of %q", u, path)
		}
		if c := containerOf(path); c != nil && (c.ID == "" || !strings.Contains(path, string(c.ID))) {
			t.Errorf("container %+v of %q", c, path)
		}
	})
}

func FuzzPasswd(f *testing.F) {
	fuzzText(f, []string{"/etc/passwd"}, func(t *testing.T, b []byte) {
		for uid, name := range parsePasswd(b) {
			if name == "" || strings.ContainsAny(name, ":\n") {
				t.Errorf("uid %d is %q", uid, name)
			}
		}
	})
}

func FuzzMountinfo(f *testing.F) {
	f.Add([]byte("36 35 0:4 net:[4026532281] /run/netns/a\\040b rw shared:5 - nsfs nsfs rw\n"))
	fuzzText(f, []string{"/proc/self/mountinfo"}, func(t *testing.T, b []byte) { namespaceMounts(b) })
}

func FuzzCounters(f *testing.F) {
	fuzzText(f, []string{"/proc/net/netstat", "/proc/net/snmp"}, func(t *testing.T, b []byte) { ParseCounters(b, Counters{}) })
}

func FuzzCounters6(f *testing.F) {
	fuzzText(f, []string{"/proc/net/snmp6"}, func(t *testing.T, b []byte) { ParseCounters6(b, Counters{}) })
}

func FuzzSockStat(f *testing.F) {
	fuzzText(f, []string{"/proc/net/sockstat", "/proc/net/sockstat6"}, func(t *testing.T, b []byte) { ParseSockStat(b, &SockStat{}) })
}

func FuzzSoftNet(f *testing.F) {
	fuzzText(f, []string{"/proc/net/softnet_stat"}, func(t *testing.T, b []byte) {
		if s, err := ParseSoftNet(b); err == nil && len(s) == 0 {
			t.Error("no processors and no error")
		}
	})
}

func FuzzConntrackStat(f *testing.F) {
	fuzzText(f, []string{"/proc/net/stat/nf_conntrack"}, func(t *testing.T, b []byte) { ParseConntrackStat(b) })
}

func FuzzPortSettings(f *testing.F) {
	f.Add("32768\t60999", "1-2,4")
	f.Fuzz(func(t *testing.T, portRange, reserved string) {
		p, err := ParsePortSettings(portRange, reserved)
		if err != nil {
			return
		}
		h, err := p.HeadRoom(nil)
		if err != nil || h.Usable+h.Reserved != h.Range || h.FirstHalf > h.Usable {
			t.Errorf("%+v: %+v, %v", p, h, err)
		}
	})
}

func FuzzTally(f *testing.F) {
	f.Add(record(sockdiag.TimeWait, 40000, 80, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		tl := newTally(TCP, CensusOptions{Settings: PortSettings{Low: 1, High: 65535}, Table: &Table{}, Keep: 4}, &PortSet{})
		tl.datagram(b)
		if len(tl.counts) > 4 || tl.sockets > uint64(len(b)) {
			t.Errorf("%d destinations, %d sockets", len(tl.counts), tl.sockets)
		}
	})
}

func FuzzDirents(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 24, 0, 4, '4', '2', 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for n, off := range numericEntries(b) {
			if n < 0 || off < 0 || off >= len(b) {
				t.Errorf("entry %d at %d of %d", n, off, len(b))
			}
		}
	})
}

func FuzzSocketLink(f *testing.F) {
	f.Add([]byte("socket:[12345]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		socketInode(b)
		parseNamespaceLink(string(b))
	})
}
