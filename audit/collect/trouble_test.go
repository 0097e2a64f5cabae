package collect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// TestUnprivileged: nobody reads what nobody may, and is told what is missing.
func TestUnprivileged(t *testing.T) {
	needRoot(t)
	lab.Need(t, "nft", "iptables-legacy")
	l := lab.New(t, lab.Topology{Containers: 1})
	l.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: anyAddr(8081)})
	l.Server.Load(t, lab.NFT, nftRules)
	l.Server.Load(t, lab.IPTablesLegacy, legacyRules)
	run := func(uid uint32) (got told) {
		l.Server.Do(func() {
			cmd := exec.Command("/proc/self/exe")
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
			got = ask(t, cmd)
		})
		return got
	}
	root, nobody := run(0), run(65534)
	if !root.Rules || len(root.Unread) != 0 || !root.Routes {
		t.Errorf("control: root reads %+v", root)
	}
	if nobody.Meta.UID != 65534 || nobody.Rules || !nobody.Routes || nobody.Listeners == nil || nobody.Sysctls == 0 {
		t.Errorf("nobody reads %+v", nobody)
	}
	for _, part := range []string{partFirewall, partPrograms} {
		if why := nobody.Unread[part]; !strings.Contains(why, "run hostaudit as root") || !strings.Contains(why, "CAP_") {
			t.Errorf("%s: %q", part, why)
		}
	}
	found := 0
	for _, l := range nobody.Listeners.Listeners {
		if l.Port() == 8081 {
			found++
			if l.Unowned != "no-privilege" {
				t.Errorf("owner of another user's listener: %+v, %s", l.Owners, l.Unowned)
			}
		}
	}
	if found != 1 {
		t.Errorf("listener found %d times", found)
	}
	for _, want := range []string{"firewall", "programs", "owners", "network namespaces"} {
		ok := false
		for _, g := range nobody.Gaps {
			ok = ok || strings.HasPrefix(g.What, want) && !g.Minor && g.Why != ""
		}
		if !ok {
			t.Errorf("no gap for %s: %+v", want, nobody.Gaps)
		}
	}
}

// TestDroppedCapabilities: exactly what a capability is for is missing.
func TestDroppedCapabilities(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("setpriv"); err != nil {
		missing(t, "setpriv")
	}
	lab.Need(t, "nft")
	l := lab.New(t, lab.Topology{})
	l.Server.Load(t, lab.NFT, nftRules)
	run := func(drop string) (got told) {
		l.Server.Do(func() {
			exe, err := os.Executable()
			if err != nil {
				t.Error(err)
			}
			got = ask(t, exec.Command("setpriv", "--bounding-set", "-"+drop, "--inh-caps", "-"+drop, exe))
		})
		return got
	}
	got := run("net_admin")
	if got.Rules || !strings.Contains(got.Unread[partFirewall], "CAP_NET_ADMIN") || !strings.Contains(got.Unread[partFirewall], "root lacks") {
		t.Errorf("without CAP_NET_ADMIN: %v, %v", got.Rules, got.Unread)
	}
	got = run("sys_admin")
	if !got.Rules || got.Unread[partFirewall] != "" {
		t.Errorf("without CAP_SYS_ADMIN: %v, %v", got.Rules, got.Unread)
	}
	entered := true
	for _, g := range got.Gaps {
		if g.What == "other network namespaces" && strings.Contains(g.Why, "CAP_SYS_ADMIN") {
			entered = false
		}
	}
	if entered {
		t.Errorf("other namespaces without CAP_SYS_ADMIN: %+v", got.Gaps)
	}
	got = run("dac_read_search,-dac_override")
	if !got.Rules && got.Unread[partFirewall] == "" {
		t.Errorf("without CAP_DAC_READ_SEARCH: %v", got.Unread)
	}
}

// TestBlockingFiles: a FIFO where a file should be holds nothing up.
func TestBlockingFiles(t *testing.T) {
	l := lab.New(t, lab.Topology{})
	root := t.TempDir()
	for _, name := range []string{"etc/os-release", "etc/sysctl.d/10-a.conf", "etc/passwd"} {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkfifo(p, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etc/sysctl.d/20-b.conf"), []byte("net.ipv4.tcp_syncookies = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	done := make(chan *audit.Snapshot, 1)
	go func() { done <- hostIn(t, l.Server, Options{Root: root, Limit: 2 * time.Second}) }()
	select {
	case s := <-done:
		if s.Files == nil || s.Meta.Root != root || s.Meta.OS != "" {
			t.Errorf("files %v, meta %+v", s.Files, s.Meta)
		}
		told := false
		for _, g := range s.Gaps {
			told = told || g.What == "name of the operating system"
		}
		if !told {
			t.Errorf("gaps %v", s.Gaps)
		}
	case <-time.After(time.Minute):
		t.Fatal("the reading hangs")
	}
}

// TestRootLinks: links are resolved inside the root and never leave it.
func TestRootLinks(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"etc", "usr/lib"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "usr/lib/os-release"), []byte("NAME=x\nPRETTY_NAME=\"Inside \\\"1\\\"\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(root, "etc/os-release")
	for _, to := range []string{"../usr/lib/os-release", "/usr/lib/os-release", "../../../../../usr/lib/os-release"} {
		os.Remove(link)
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
		if got, err := readOS(root); got != `Inside "1"` || err != nil {
			t.Errorf("link to %s: %q, %v", to, got, err)
		}
	}
}

// TestLate: a part that does not come back is given up, and what it does later
// is not seen.
func TestLate(t *testing.T) {
	var c clock
	stop := make(chan struct{})
	defer close(stop)
	got, err := timed(t.Context(), &c, "slow part", time.Millisecond, nil, func(context.Context) (int, error) {
		<-stop
		return 1, nil
	})
	var late *lateError
	if got != 0 || !errors.As(err, &late) || !strings.Contains(reader{}.explain(err, needAdmin), "no answer within 1ms: the reading of slow part was given up") {
		t.Errorf("%d, %v", got, err)
	}
	if v, err := timed(t.Context(), &c, "quick part", time.Minute, nil, func(context.Context) (int, error) { return 2, nil }); v != 2 || err != nil {
		t.Errorf("control: %d, %v", v, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := Host(ctx, Options{}); s != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, %v", s, err)
	}
}

// TestReloadStorm: a ruleset that is replaced all the time is read whole or not
// at all, never as a smaller one.
func TestReloadStorm(t *testing.T) {
	lab.Need(t, "nft", "iptables-legacy")
	l := lab.New(t, lab.Topology{})
	const rules = 300
	var text strings.Builder
	text.WriteString("table ip storm\nflush table ip storm\ntable ip storm {\n chain c { type filter hook input priority 0;\n")
	for i := range rules {
		fmt.Fprintf(&text, "tcp dport %d drop\n", i+1)
	}
	text.WriteString("}\n}\n")
	var legacy strings.Builder
	legacy.WriteString("*filter\n:INPUT ACCEPT\n")
	for i := range rules {
		fmt.Fprintf(&legacy, "-A INPUT -p tcp --dport %d -j DROP\n", i+1)
	}
	legacy.WriteString("COMMIT\n")
	l.Server.Load(t, lab.NFT, text.String())
	l.Server.Load(t, lab.IPTablesLegacy, legacy.String())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, load := range []struct {
		by   lab.Loader
		text string
	}{{lab.NFT, text.String()}, {lab.IPTablesLegacy, legacy.String()}} {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if err := l.Server.TryLoad(context.Background(), load.by, load.text); err != nil {
						t.Errorf("load: %v", err)
						return
					}
				}
			}
		})
	}
	whole, unread := 0, 0
	for range 30 {
		s := hostIn(t, l.Server, Options{NoCensus: true, MaxNamespaces: 1})
		ns := home(s)
		if ns.Ruleset == nil {
			unread++
			if ns.Unread[partFirewall] == "" {
				t.Error("no ruleset and no reason")
			}
			continue
		}
		whole++
		for _, table := range ns.Ruleset.Tables {
			for _, chain := range table.Chains {
				if chain.Base == nil || chain.Unread != "" || chain.Name != "c" && chain.Name != "INPUT" {
					continue
				}
				if len(chain.Rules) != rules {
					t.Errorf("chain %s %s has %d rules, always %d", table.Name, chain.Name, len(chain.Rules), rules)
				}
			}
		}
	}
	close(stop)
	wg.Wait()
	t.Logf("read whole %d times, not at all %d times", whole, unread)
	if whole == 0 {
		t.Error("never read")
	}
}

// TestVanishing: processes and namespaces that end while they are read.
func TestVanishing(t *testing.T) {
	l := lab.New(t, lab.Topology{})
	l.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: anyAddr(8081)})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			cmd := exec.Command("/bin/true")
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
			if err := cmd.Run(); err != nil {
				t.Errorf("a process of its own namespace: %v", err)
				return
			}
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			l.Server.Do(func() {
				if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
					ln.Close()
				}
			})
		}
	})
	for range 15 {
		s := hostIn(t, l.Server, Options{NoCensus: true})
		if l := listener(home(s), 8081); l == nil || len(l.Owners) == 0 {
			t.Errorf("listener %+v", l)
		}
		for _, g := range s.Gaps {
			if !g.Minor && !strings.HasPrefix(g.What, "owners") && !(strings.HasPrefix(g.What, "programs") && !realRoot()) {
				t.Errorf("gap: %+v", g)
			}
		}
	}
	close(stop)
	wg.Wait()
}
