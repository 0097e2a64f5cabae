package remedy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// TestToolsThatLie puts programs in the place of nft and iptables that fail, hang,
// flood, lie or die: a fresh reading decides, and it is all old or all new. The
// mounts are private to the laboratory.
func TestToolsThatLie(t *testing.T) {
	if !apart(t) {
		return
	}
	lab.Need(t, "nft", "iptables-legacy")
	for _, tool := range []struct {
		name    string
		loader  lab.Loader
		rules   string
		program string
	}{
		{"nft", lab.NFT, nftDrop, "nft"},
		{"iptables-legacy", lab.IPTablesLegacy, xtPolicy("icmp"), "iptables-legacy"},
	} {
		for _, fake := range []struct {
			name, script string
			want         error // nil: done
		}{
			{"status 1", "exit 1", ErrRolledBack},
			{"status 4", "exit 4", ErrRolledBack},
			{"hangs", "sleep 1000", ErrRolledBack},
			{"floods", "head -c 100000000 /dev/zero", ErrRolledBack},
			{"does nothing and says well", "exit 0", ErrRolledBack},
			{"kills itself", "kill -9 $$", ErrRolledBack},
			{"garbage", `printf '\377\376\033[2J'; exit 2`, ErrRolledBack},
			{"works and says 1", `"$REAL" "$@"; exit 1`, nil},
			{"works and hangs, once", `if [ -e "$ONCE" ]; then exec "$REAL" "$@"; fi; "$REAL" "$@"; : > "$ONCE"; sleep 1000`, ErrRolledBack},
			{"floods what errors go to", "cat /dev/zero >&2", ErrRolledBack},
			{"--version: status 1", "exit 1", ErrRolledBack},
			{"--version: hangs", "sleep 1000", ErrRolledBack},
			{"--version: floods", "cat /dev/zero", ErrRolledBack},
			{"--version: garbage", `printf '\377\376\033[2J'`, ErrRolledBack},
			{"works and cannot undo", `case "$*$(cat)" in *-D*|*delete*) exit 1;; esac; "$REAL" "$@"; sleep 1000`, ErrLeft},
		} {
			// go-iptables asks for the version first.
			version, about := strings.CutPrefix(fake.name, "--version: ")
			script := fake.script
			switch {
			case tool.program == "nft" && (about || strings.Contains(fake.name, "cannot undo")):
				continue // the script eats what nft reads; iptables stands for both
			case about:
				fake.name = "version " + version
				script = "case $1 in --version) " + script + "; exit;; esac; exec \"$REAL\" \"$@\""
			case tool.program != "nft":
				script = "case $1 in --version) exec \"$REAL\" \"$@\";; esac; " + script
			}
			t.Run(tool.name+" "+fake.name, func(t *testing.T) {
				d := newDrill(t, false, everybody)
				d.sys.ToolTime = 1500 * time.Millisecond
				d.lab.Server.Load(t, tool.loader, tool.rules)
				p, in, err := d.plan("")
				if err != nil || len(p.Steps) == 0 {
					t.Fatalf("%v %v", p, err)
				}
				restore := replaceTool(t, tool.program, script)
				err = d.apply(p, in, nil)
				restore()
				if (fake.want == nil) != (err == nil) || fake.want != nil && !errors.Is(err, fake.want) {
					t.Errorf("it ended with %v, want %v", err, fake.want)
				}
				if open := d.connects(webPort); open != (fake.want != ErrRolledBack) {
					t.Errorf("the port is open: %v", open)
				}
				if errors.Is(err, ErrLeft) && !strings.Contains(err.Error(), "by hand: iptables-legacy") {
					t.Errorf("what is left has no command: %v", err)
				}
			})
		}
	}
}

// replaceTool binds a script over a program, in the mount namespace of the
// laboratory, and returns what takes it away.
func replaceTool(t *testing.T, name, script string) func() {
	t.Helper()
	undo, _ := replaceToolOnce(t, name, script)
	return undo
}

// replaceToolOnce says, too, which file $ONCE is in the script.
func replaceToolOnce(t *testing.T, name, script string) (undo func(), once string) {
	t.Helper()
	p, err := findTool("/", name)
	if err != nil {
		t.Fatal(err)
	}
	real, err := filepath.EvalSymlinks(p)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(real)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// Where one binary has many names it goes by the name it is called by.
	kept := filepath.Join(dir, name)
	if err := os.WriteFile(kept, data, 0o755); err != nil {
		t.Fatal(err)
	}
	fake := filepath.Join(dir, "fake")
	text := fmt.Sprintf("#!/bin/bash\nREAL=%s ONCE=%s/once\n", kept, dir)
	if real != p {
		// The binary stands behind other names, too: they go on working.
		text += fmt.Sprintf("case ${0##*/} in %s) ;; *) exec -a \"${0##*/}\" \"$REAL\" \"$@\";; esac\n", name)
	}
	if err := os.WriteFile(fake, []byte(text+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(fake, real, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	done := false
	undo = func() {
		if done {
			return
		}
		done = true
		if err := unix.Unmount(real, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(undo)
	return undo, filepath.Join(dir, "once")
}
