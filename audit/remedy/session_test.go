package remedy

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// station is a host with the real sshd, sudo, su, tmux and screen in a root that is
// thrown away; the bench beneath it is what a login there changes.
type station struct {
	*bench
	d   *drill
	key string
}

const stationPort = "2222"

// newStation starts an sshd in the server's namespace, with root, op (who may use
// sudo) and pty (whose sudo makes a terminal of its own, as sudo does since 1.9.14).
func newStation(t *testing.T) *station {
	t.Helper()
	lab.Need(t, "sshd", "ssh", "ssh-keygen", "sudo", "su", "tmux", "screen", "useradd", "nft")
	if own, err := os.ReadFile("/proc/self/uid_map"); err != nil || len(strings.Fields(string(own))) != 3 || strings.Fields(string(own))[2] != "4294967295" {
		missing(t, "the real root is needed to log in as somebody")
	}
	d := newDrill(t, false, everybody)
	d.throwAway()
	d.in("mkdir", "-p", "/run/sshd", "/run/screen", "/etc/ssh/keys")
	d.in("chmod", "777", "/run/screen")
	d.in("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/host_of_test")
	key := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"op", "pty"} {
		d.in("useradd", "-m", "-s", "/bin/bash", "-p", "*", user)
		d.put("/etc/ssh/keys/"+user, string(public))
	}
	d.put("/etc/ssh/keys/root", string(public))
	d.put("/etc/sudoers.d/test", "op ALL=(ALL) NOPASSWD: ALL\npty ALL=(ALL) NOPASSWD: ALL\nDefaults:pty use_pty\nDefaults !lecture\n")
	d.in("chmod", "440", "/etc/sudoers.d/test")
	d.put("/etc/ssh/of_test", "Port "+stationPort+"\nHostKey /etc/ssh/host_of_test\nPermitRootLogin yes\nAuthorizedKeysFile /etc/ssh/keys/%u\nStrictModes no\nUsePAM no\nPidFile none\nPrintLastLog no\nPrintMotd no\n")
	// What a login runs is this very test, told what to do by a script.
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	to, err := os.OpenFile(filepath.Join(d.sys.Root, "/usr/local/bin/remedy.test"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, exe); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, ns: d.lab.Server, root: filepath.Join(d.sys.Root, "remedy-test"), steps: testSteps(t, newA)}
	plan, err := json.Marshal(b.steps)
	if err != nil {
		t.Fatal(err)
	}
	b.reset()
	d.put("/etc/plan-of-test", string(plan))
	script := func(name, env string) {
		d.put("/usr/local/bin/"+name, "#!/bin/sh\n"+env+` REMEDY_CHILD=$1 REMEDY_ROOT=/remedy-test REMEDY_LOGIN=real REMEDY_PLAN=$(cat /etc/plan-of-test) `+lab.Marker+"="+os.Getenv(lab.Marker)+` exec /usr/local/bin/remedy.test`+"\n")
		d.in("chmod", "755", "/usr/local/bin/"+name)
	}
	script("inside", "")
	script("waiting", "REMEDY_WAIT=1 REMEDY_DEADLINE=60s")
	script("waiting-briefly", "REMEDY_WAIT=1 REMEDY_DEADLINE=4s")
	d.daemon("/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/of_test")
	s := &station{b, d, key}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if out, err := s.ssh("root", false, "true").CombinedOutput(); err == nil {
			return s
		} else if time.Now().After(end) {
			t.Fatalf("no login: %v\n%s", err, out)
		}
	}
}

// ssh is a login from the client's side that runs a command.
func (s *station) ssh(user string, tty bool, command string) *onClient {
	argv := []string{"-q", "-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-i", s.key, "-p", stationPort}
	if tty {
		argv = append(argv, "-tt")
	}
	cmd := exec.Command("ssh", append(argv, user+"@"+s.d.server().String(), command)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TERM=xterm", "HOME=" + s.t.TempDir()}
	return &onClient{cmd, s.d.lab.Client}
}

// onClient is a command that runs in the client's namespace.
type onClient struct {
	*exec.Cmd
	ns *lab.Namespace
}

func (c *onClient) Start() error { return c.ns.Start(c.Cmd) }

func (c *onClient) CombinedOutput() ([]byte, error) {
	var out strings.Builder
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		return nil, err
	}
	err := c.Wait()
	return []byte(out.String()), err
}

// TestRealSessions logs in through the real sshd, becomes somebody else through the
// real sudo and su, and works within the real tmux and screen: the connection that the
// operator came by is found each time, and kept.
func TestRealSessions(t *testing.T) {
	t.Parallel()
	s := newStation(t)
	for _, c := range []struct {
		name, user, command string
		tty                 bool
		// detached: no ancestor is the sshd.
		detached bool
	}{
		{"plain", "root", "inside login", true, false},
		{"no terminal", "root", "inside login", false, false},
		{"sudo", "op", "sudo -n inside login", true, false},
		{"sudo without a terminal", "op", "sudo -n inside login", false, false},
		{"sudo with its own terminal", "pty", "sudo -n inside login", true, false},
		{"sudo -i", "op", "sudo -n -i inside login", true, false},
		{"su -", "root", "su - -c 'inside login'", true, false},
		{"su to somebody, and sudo", "root", "su - op -c 'sudo -n inside login'", true, false},
		{"sudo su -", "pty", "sudo -n su - -c 'inside login'", true, false},
		{"sudo sudo", "op", "sudo -n sudo -n -u op sudo -n inside login", true, false},
		{"tmux", "root", "tmux -L plain new-session -d 'inside login >/tmp/told 2>&1'; sleep 1; until grep -q LOGIN /tmp/told; do sleep 0.1; done; cat /tmp/told; rm /tmp/told", true, true},
		{"sudo tmux", "op", "sudo -n tmux -L sudo new-session -d 'inside login >/tmp/told 2>&1'; until sudo -n grep -q LOGIN /tmp/told; do sleep 0.1; done; sudo -n cat /tmp/told; sudo -n rm /tmp/told", true, true},
		{"sudo within tmux", "op", "tmux -L within new-session -d 'sudo -n inside login >/tmp/told 2>&1'; until grep -q LOGIN /tmp/told; do sleep 0.1; done; cat /tmp/told; rm /tmp/told", true, true},
		{"screen", "root", "screen -dmS plain sh -c 'inside login >/tmp/told 2>&1'; until grep -q LOGIN /tmp/told; do sleep 0.1; done; cat /tmp/told; rm /tmp/told", true, true},
		{"nohup setsid", "root", "setsid -f nohup env -i PATH=$PATH sh -c 'sleep 1; inside login >/tmp/told 2>&1; :'; until grep -q LOGIN /tmp/told; do sleep 0.1; done; cat /tmp/told; rm /tmp/told", true, true},
	} {
		out, err := s.ssh(c.user, c.tty, `echo "CONNECTION $SSH_CONNECTION"; `+c.command).CombinedOutput()
		var connection string
		var told toldLogin
		found := false
		for line := range strings.Lines(strings.ReplaceAll(string(out), "\r", "")) {
			if v, ok := strings.CutPrefix(line, "CONNECTION "); ok {
				connection = strings.TrimSpace(v)
			}
			if v, ok := strings.CutPrefix(line, "LOGIN "); ok {
				found = json.Unmarshal([]byte(v), &told) == nil
			}
		}
		want, ok := (Login{Connection: connection}).path()
		if err != nil || !found || !ok {
			t.Errorf("%s: %v\n%s", c.name, err, out)
			continue
		}
		if !slices.Contains(told.Paths, want) {
			t.Errorf("%s: the operator's connection %s is not among %v", c.name, want, told.Paths)
		}
		if !c.detached && (told.Login.Connection != connection || told.Login.Server == 0 || told.Login.Since == 0) {
			t.Errorf("%s: found %+v, the login is %s", c.name, told.Login, connection)
		}
		if c.detached && told.Login.Server != 0 {
			t.Errorf("%s: an sshd was found above it: %+v", c.name, told.Login)
		}
	}
}

// TestLoginLost cuts the login off while a change waits to be confirmed: it is undone
// at once, by whichever way the operator became root, with a terminal and without. Only
// what goes on in tmux waits for its deadline.
func TestLoginLost(t *testing.T) {
	t.Parallel()
	s := newStation(t)
	for _, c := range []struct {
		name, user, command string
		tty                 bool
	}{
		{"plain", "root", "waiting apply", true},
		{"no terminal", "root", "waiting apply", false},
		{"sudo", "op", "sudo -n waiting apply", true},
		{"sudo without a terminal", "op", "sudo -n waiting apply", false},
		{"sudo with its own terminal", "pty", "sudo -n waiting apply", true},
		{"su -", "root", "su - -c 'waiting apply'", true},
		{"nohup", "root", "nohup waiting apply", true},
		{"tmux", "root", "tmux -L lost new-session 'waiting-briefly apply'", true},
	} {
		s.reset()
		cmd := s.ssh(c.user, c.tty, c.command)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(20 * time.Second); s.state() != Applied; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: it does not wait: %s\n%s", c.name, s.now(), &out)
			}
		}
		if !s.half() {
			t.Errorf("%s: while it waits the host is %s", c.name, s.now())
		}
		start := time.Now()
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		s.until(func() bool { return s.now() == "old" && s.leftovers() == "" })
		took := time.Since(start)
		if took > 30*time.Second {
			t.Errorf("%s: it took %s", c.name, took)
		}
		t.Logf("%s: undone after %.1f s", c.name, took.Seconds())
	}
}

// TestConfirmedThroughSudo: from the login that the change was made over it is not
// kept, from a new one it is.
func TestConfirmedThroughSudo(t *testing.T) {
	t.Parallel()
	s := newStation(t)
	cmd := s.ssh("op", true, "sudo -n waiting apply & until sudo -n test -e /remedy-test/ask; do sleep 0.1; done; sudo -n inside confirm; echo CONFIRM $?; wait $!; echo APPLY $?")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.until(func() bool { return s.state() == Applied })
	s.write("/ask", "")
	time.Sleep(3 * time.Second)
	if s.state() != Applied {
		t.Errorf("after a confirmation over the same login it is %q\n%s", s.state(), &out)
	}
	text, err := s.ssh("op", true, "sudo -n inside confirm").CombinedOutput()
	if err != nil {
		t.Errorf("from a new login: %v\n%s", err, text)
	}
	_ = cmd.Wait()
	if !strings.Contains(out.String(), "CONFIRM 6") || !strings.Contains(out.String(), "APPLY 0") || s.now() != "new" {
		t.Errorf("it ended with %s, the host is %s", fmt.Sprintf("%q", out.String()), s.now())
	}
}
