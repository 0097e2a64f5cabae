package remedy

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// TestFindLogin finds the operator's connection through what takes SSH_CONNECTION
// away (sudo and su do what env -i does) and through further shells, beneath a
// process that is named sshd.
func TestFindLogin(t *testing.T) {
	lab.Need(t)
	shell, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	sshd := filepath.Join(t.TempDir(), "sshd")
	data, err := os.ReadFile(shell)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(sshd, data, 0o755); err != nil {
		t.Fatal(err)
	}
	const connection = "198.51.100.7 40000 192.0.2.2 22"
	for name, c := range map[string]struct {
		script string
		want   bool
	}{
		"plain":             {`exec cat`, true},
		"no tty":            {`setsid -w cat`, true},
		"sudo":              {`env -i /bin/cat; :`, true},
		"su, sudo and make": {`env -i /bin/sh -c 'env -i /bin/sh -c "/bin/cat; :"; :'; :`, true},
	} {
		// sshd starts a shell that knows the connection, which runs the rest.
		cmd := exec.Command(sshd, "-c", `SSH_CONNECTION="`+connection+`" bash -c "$0"; :`, c.script)
		before := int64(sinceBoot())
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// cat answers when all of them are there.
		fmt.Fprintln(in, "?")
		if _, err := io.ReadFull(out, make([]byte, 2)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		leaf := cmd.Process.Pid
		for {
			children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", leaf, leaf))
			if err != nil {
				t.Fatal(err)
			}
			f := strings.Fields(string(children))
			if len(f) == 0 {
				break
			}
			if leaf, err = strconv.Atoi(f[0]); err != nil {
				t.Fatal(err)
			}
		}
		l := FindLogin("/proc", leaf)
		if l.Connection != connection || l.Server != cmd.Process.Pid {
			t.Errorf("%s: %+v", name, l)
		}
		if after := int64(sinceBoot()) + int64(20*time.Millisecond); l.Since < before || l.Since > after {
			t.Errorf("%s: since %d, not between %d and %d", name, l.Since, before, after)
		}
		in.Close()
		_ = cmd.Wait()
	}
	if l := FindLogin("/proc", os.Getpid()); l.Connection != "" && os.Getenv("SSH_CONNECTION") == "" {
		t.Logf("this test runs in a login: %+v", l)
	}
}

// TestTmux: under tmux no ancestor is the sshd that the operator came by, and every
// connection to it is kept.
func TestTmux(t *testing.T) {
	lab.Need(t, "tmux", "nft")
	socket := filepath.Join(t.TempDir(), "tmux")
	pidFile := socket + ".pid"
	tmux := exec.Command("tmux", "-S", socket, "-f", "/dev/null", "new-session", "-d", "sh -c 'echo $$ >"+pidFile+"; exec sleep 100'")
	tmux.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TERM=xterm"}
	if out, err := tmux.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", socket, "kill-server").Run() })
	pid := 0
	for end := time.Now().Add(20 * time.Second); pid == 0; time.Sleep(20 * time.Millisecond) {
		if data, err := os.ReadFile(pidFile); err == nil {
			pid, _ = strconv.Atoi(strings.TrimSpace(string(data)))
		}
		if time.Now().After(end) {
			t.Fatal("tmux runs nothing")
		}
	}
	if l := FindLogin("/proc", pid); l.Server != 0 || l.Connection != "" && os.Getenv("SSH_CONNECTION") == "" {
		t.Errorf("within tmux a login was found: %+v", l)
	}
	for _, v6 := range []bool{false, true} {
		d := newDrill(t, v6, everybody)
		d.lab.Server.Load(t, lab.NFT, nftDrop)
		d.logIn()
		want, ok := d.sys.Login.path()
		if !ok {
			t.Fatal("no login")
		}
		d.sys.Login = Login{} // as FindLogin has it
		var paths []Path
		d.lab.Server.Do(func() {
			in := d.input()
			ls := in.Snapshot.World.Namespaces[0].Listeners.Listeners
			for i := range ls {
				if ls[i].Port() == sshPort {
					ls[i].Owners = append(ls[i].Owners[:0:0], ls[i].Owners...)
					if len(ls[i].Owners) == 0 {
						t.Fatal("the listener's owner was not found")
					}
					ls[i].Owners[0].Comm = "sshd"
				}
			}
			var err error
			if paths, err = d.sys.operators(in.Snapshot); err != nil {
				t.Fatal(err)
			}
		})
		if len(paths) != 1 || paths[0] != want {
			t.Errorf("operators %v, want %v", paths, want)
		}
	}
}

// TestOldConnection: a login that was open before the change proves nothing about
// new ones; one from after it does.
func TestOldConnection(t *testing.T) {
	b := newBench(t)
	cmd, out := b.waiting("60s")
	s := &System{Root: b.root, Watch: noWatchdog{}}
	s.Defaults()
	confirm := func(since int64) (err error) {
		b.ns.Do(func() {
			s.Login = Login{Connection: "192.0.2.9 50000 192.0.2.2 22", Server: 1, Since: since}
			_, err = s.Confirm(t.Context())
		})
		return err
	}
	if err := confirm(1); err == nil || !strings.Contains(err.Error(), "open before the change") || b.state() != Applied {
		t.Errorf("an old connection: %v, %s", err, b.state())
	}
	if err := confirm(int64(sinceBoot())); err != nil {
		t.Errorf("a new connection: %v", err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 0 || b.now() != "new" {
		t.Errorf("exit code %d, %s\n%s", code, b.now(), out)
	}
}

// TestStat reads the start of a process from a stat with a hostile name.
func TestStat(t *testing.T) {
	stat := "7 (a) S 1 2 3) S 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 250 1 2"
	if got := startOf([]byte(stat)); got != int64(2510*time.Millisecond) {
		t.Errorf("%d", got)
	}
	for _, bad := range []string{"", "7 (a", "7 (a) S 1", strings.Replace(stat, " 250 ", " -250 ", 1), strings.Replace(stat, " 250 ", " x ", 1)} {
		if got := startOf([]byte(bad)); got != 0 {
			t.Errorf("%q: %d", bad, got)
		}
	}
}
