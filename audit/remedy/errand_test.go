package remedy

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// TestRunKilledWhileAToolWorks kills an apply while the program that it has started
// is still at its work, and goes on with it: a recovery at that moment waits for that
// program, a further apply is refused, and afterwards all is old. A program that
// hangs is ended in time although nobody is left who started it.
func TestRunKilledWhileAToolWorks(t *testing.T) {
	if !apart(t) {
		return
	}
	lab.Need(t, "nft", "iptables-legacy")
	for _, tool := range []struct {
		program string
		loader  lab.Loader
		rules   string
		// on says, in a script, that it is the call which changes something.
		on string
	}{
		{"nft", lab.NFT, nftDrop, `[ "$1" = -f ]`},
		{"iptables-legacy", lab.IPTablesLegacy, xtPolicy("icmp"), `[ "$1" != --version ]`},
	} {
		for name, script := range map[string]string{
			"works":           `if WHEN && [ ! -e "$ONCE" ]; then : > "$ONCE"; sleep 2; fi; exec "$REAL" "$@"`,
			"works and hangs": `if WHEN && [ ! -e "$ONCE" ]; then : > "$ONCE"; "$REAL" "$@"; sleep 60; fi; exec "$REAL" "$@"`,
		} {
			t.Run(tool.program+" "+name, func(t *testing.T) {
				d := newDrill(t, false, everybody)
				d.lab.Server.Load(t, tool.loader, tool.rules)
				p, _, err := d.plan("")
				if err != nil || len(p.Steps) == 0 {
					t.Fatalf("%v %v", p, err)
				}
				steps, err := json.Marshal(p.Steps)
				if err != nil {
					t.Fatal(err)
				}
				child := func(what string) (*exec.Cmd, *bytes.Buffer) {
					cmd, out := exec.Command("/proc/self/exe"), &bytes.Buffer{}
					cmd.Env = []string{"PATH=" + os.Getenv("PATH"), lab.Marker + "=" + os.Getenv(lab.Marker), "REMEDY_CHILD=" + what, "REMEDY_ROOT=" + d.sys.Root,
						"REMEDY_PLAN=" + string(steps), "REMEDY_TOOLTIME=8s"}
					cmd.Stderr = out
					if err := d.lab.Server.Start(cmd); err != nil {
						t.Fatal(err)
					}
					return cmd, out
				}
				restore, once := replaceToolOnce(t, tool.program, strings.ReplaceAll(script, "WHEN", tool.on))
				defer restore()
				apply, text := child("apply")
				for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
					if _, err := os.Stat(once); err == nil {
						break
					} else if time.Now().After(end) {
						t.Fatalf("the program was not started\n%s", text)
					}
				}
				if err := apply.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				_ = apply.Wait()
				second, text := child("apply")
				_ = second.Wait()
				if code := second.ProcessState.ExitCode(); code != 6 || !strings.Contains(text.String(), "is at work") {
					t.Errorf("an apply meanwhile ended with %d\n%s", code, text)
				}
				recovery, text := child("recover")
				_ = recovery.Wait()
				if code := recovery.ProcessState.ExitCode(); code != 0 {
					t.Errorf("the recovery ended with %d\n%s", code, text)
				}
				if d.connects(webPort) {
					t.Error("the port is open after the recovery")
				}
				time.Sleep(2500 * time.Millisecond) // whoever is left comes to its end
				if d.connects(webPort) {
					t.Error("a program that was left behind has opened the port")
				}
				if _, err := os.Stat(filepath.Join(d.sys.Root, d.sys.State, journalName)); err == nil {
					t.Error("the journal is open")
				}
			})
		}
	}
}

// TestErrandByHand: it is nothing that a person starts, and nothing that is told to it
// wrongly has an effect.
func TestErrandByHand(t *testing.T) {
	for name, in := range map[string]string{
		"nothing":       "",
		"garbage":       "\x00\xff{",
		"unknown field": `{"argv":["/bin/true"],"time":1000000000,"shell":true}`,
		"no program":    `{"time":1000000000}`,
		"no group":      `{"argv":["/bin/true"],"time":1000000000}`,
	} {
		cmd := exec.Command("/proc/self/exe", ErrandCommand)
		cmd.Stdin = strings.NewReader(in)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != errandFailed || len(out) == 0 {
			t.Errorf("%s: exit code %d\n%s", name, code, out)
		}
	}
	// From a shell, with all that it wants.
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("setsid", "-w", "sh", "-c", exe+" "+ErrandCommand+"; exit $?")
	cmd.Stdin = strings.NewReader(`{"argv":["/bin/echo","done"],"root":"/","time":10000000000}`)
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != errandFailed || !strings.Contains(string(out), "for nobody else") {
		t.Errorf("from a shell: exit code %d\n%s", code, out)
	}
}
