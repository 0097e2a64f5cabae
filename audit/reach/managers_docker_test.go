package reach_test

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// TestDockerEngine asks about containers that the real Docker Engine publishes,
// in either back end of iptables: through the published port, past it by the
// container's own address, from the host itself, and with a rule in DOCKER-USER.
func TestDockerEngine(t *testing.T) {
	t.Parallel()
	lab.Need(t, "dockerd", "docker", "containerd", "runc", "iptables-nft", "iptables-legacy", "conntrack", "go", "tar")
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) { dockerEngine(t, backend) })
	}
}

func dockerEngine(t *testing.T, backend string) {
	l := lab.New(t, lab.Topology{Links: 2})
	root := l.Server.ThrowAway(t, filepath.Join(t.TempDir(), "files"))
	root.IPTables(t, backend)
	sys := filepath.Join(root.Path, "sys") // control groups
	if err := unix.Mount("/sys", sys, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		t.Fatalf("bind /sys: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(sys, unix.MNT_DETACH) })
	build := exec.Command("go", "build", "-o", filepath.Join(root.Path, "srv/answer"), "./testdata/managers/answer")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the container's program: %v\n%s", err, out)
	}
	root.Daemon(t, "dockerd", "--data-root", "/srv/data", "--storage-driver", "vfs")
	docker := func(ctx context.Context, args ...string) (string, error) {
		return l.Server.Exec(ctx, "", append([]string{"chroot", root.Path, "docker"}, args...)...)
	}
	waitFor(t, "dockerd", func(ctx context.Context) error { _, err := docker(ctx, "info"); return err })
	must := func(args ...string) string {
		t.Helper()
		out, err := docker(t.Context(), args...)
		if err != nil {
			t.Fatalf("docker %v: %v", args, err)
		}
		return strings.TrimSpace(out)
	}
	root.Run(t, "tar", "-C", "/srv", "-cf", "/srv/image.tar", "answer")
	must("import", "/srv/image.tar", "answer")
	id := must("run", "-d", "--name", "web", "-p", "8080:80", "-p", "10.9.1.2:8081:80", "-p", "127.0.0.1:8082:80", "-p", "5353:53/udp", "answer", "/answer", "80", "53")
	t.Cleanup(func() { docker(context.Background(), "rm", "-f", id) })
	must("network", "create", "--subnet", "172.30.0.0/24", "-o", "com.docker.network.bridge.name=br-app", "app")
	id2 := must("run", "-d", "--name", "app", "--network", "app", "--ip", "172.30.0.9", "-p", "8443:80", "answer", "/answer", "80", "443")
	t.Cleanup(func() { docker(context.Background(), "rm", "-f", id2) })
	var inspected []struct{ NetworkSettings struct{ IPAddress string } }
	if err := json.Unmarshal([]byte(must("inspect", id)), &inspected); err != nil || len(inspected) != 1 {
		t.Fatalf("docker inspect: %v", err)
	}
	box, box2 := netip.MustParseAddr(inspected[0].NetworkSettings.IPAddress), netip.MustParseAddr("172.30.0.9")
	host, host1 := l.ServerAddr(0), l.ServerAddr(1)
	// dockerd sets the policy of FORWARD to DROP.
	if out := l.Server.Run(t, "iptables-"+backend+"-save"); !strings.Contains(out, "DOCKER") {
		t.Fatalf("Docker wrote no chains:\n%s", out)
	}
	l.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: netip.MustParseAddrPort("0.0.0.0:22")})
	var probes []lab.Probe
	for _, from := range []string{"10.9.0.1", "10.9.0.77", "198.51.100.7", "203.0.113.200"} {
		f := netip.MustParseAddr(from)
		for _, via := range []string{"eth0", "eth1"} {
			for _, port := range []uint16{22, 80, 8080, 8081, 8082, 8443, 9} {
				for _, to := range []netip.Addr{host, host1, box, box2} {
					p := dial(lab.TCP, f, to, port)
					p.Via = via
					probes = append(probes, p)
				}
			}
			for _, to := range []netip.Addr{host, box} {
				for _, port := range []uint16{53, 5353} {
					p := dial(lab.UDP, f, to, port)
					p.Via = via
					probes = append(probes, p)
				}
			}
		}
	}
	for _, to := range []string{host.String(), "127.0.0.1", box.String(), host1.String()} {
		for _, port := range []uint16{22, 80, 8080, 8081, 8082, 8443} {
			p := dial(lab.TCP, netip.Addr{}, netip.MustParseAddr(to), port)
			p.In, p.From = l.Server, host
			if to == "127.0.0.1" {
				p.From = netip.MustParseAddr(to)
			}
			if to == box.String() {
				p.From = netip.MustParseAddr("172.17.0.1")
			}
			probes = append(probes, p)
		}
	}
	read := func() *reach.World { return hostWorld(t, l.Server) }
	s := &scene{name: "docker-" + backend, lab: l, probes: probes, foreign: true}
	s.hold(t)

	e := reach.New(read())
	published := dial(lab.TCP, l.ClientAddr(0), host, 8080)
	if got := l.Probe(t, published)[0]; got.ClientSees != lab.Connected {
		t.Fatalf("positive control: %v", got)
	}
	a, err := e.Ask(question(l, published, "", 0), reach.WithRules)
	if err != nil {
		t.Fatal(err)
	}
	if a.ClientSees != reach.Connected || a.DeliveredTo == nil || a.DeliveredTo.NetNS == "" || a.DeliveredTo.Port != 80 {
		t.Errorf("the published port: %s, delivered to %+v; want the container's port 80 in its own namespace", a.ClientSees, a.DeliveredTo)
	}
	dnat := false
	for _, line := range a.Lines {
		dnat = dnat || line.Rule != nil && strings.Contains(line.Rule.Text(), "DNAT") && line.Rule.Chain.Name == "DOCKER"
	}
	if !dnat {
		t.Errorf("the walk does not name Docker's DNAT rule:\n%+v", a.Lines)
	}

	l.Server.Run(t, "iptables-"+backend, "-I", "DOCKER-USER", "-i", "eth0", "!", "-s", "10.9.0.77", "-j", "DROP")
	if err := l.Server.FlushConntrack(); err != nil {
		t.Fatal(err)
	}
	s.name = "docker-user-" + backend
	s.hold(t)
	a, err = reach.New(read()).Ask(question(l, published, "", 0), reach.WithRules)
	if err != nil {
		t.Fatal(err)
	}
	if a.ClientSees != reach.Timeout || a.DecidedBy == nil || a.DecidedBy.Chain != "DOCKER-USER" {
		t.Errorf("a blocked published port: %s by %+v, want a timeout by DOCKER-USER", a.ClientSees, a.DecidedBy)
	}
}
