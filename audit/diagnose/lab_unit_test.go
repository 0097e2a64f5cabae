package diagnose_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// chat is a service that ends as /how says, or serves the port of its argument.
const chat = `#!/bin/sh
case $(cat /how) in
exit) exit 1 ;;
kill) kill -KILL $$ ;;
segv) kill -SEGV $$ ;;
done) exit 0 ;;
hang) exec sleep 1000 ;;
eat)
	while ! test -e /go; do sleep 0.02; done
	exec python3 -S -c 'x = bytearray(256 << 20)'
	;;
esac
exec python3 -S -c '
import socket, sys
s = socket.create_server(("", int(sys.argv[1])))
while True: s.accept()[0].close()' "$1"
`

// unitCase is a way in which the unit of port 8080 does not run.
type unitCase struct {
	name, target string
	// how is what chat does; service, socket and db are the unit files, "" for none.
	how, service, socket, db string
	// vendor: the service's file is the distribution's.
	vendor bool
	unit   string // --unit
	config bool   // services: names the port
	// act are commands that may fail, one a line; until is the state in which the
	// unit then is: "ActiveState SubState" of name (chat.service).
	act, until, of string
	says           []string
	remedy         string
	// heal are commands before the service serves.
	heal string
	// meanwhile is what else is done.
	meanwhile func(t *testing.T)
}

const (
	plainUnit = "[Service]\nExecStart=/srv/chat 8080\n"
	// Of units that no other one wants systemd forgets how they ended without failing.
	wanted = "[Install]\nWantedBy=multi-user.target\n"
)

var unitCases = []unitCase{
	{
		name: "exit status", how: "exit", service: plainUnit, act: "systemctl start chat", until: "failed failed",
		says: []string{"unit chat.service: ended with exit status 1 ", "looked at because its command names the port (whether it is the service meant is not known)"}, remedy: "find out why (journalctl -b -u chat.service",
	},
	{
		name: "killed", how: "kill", service: "[Service]\nExecStart=/srv/chat 8080\nRestart=no\n", config: true, act: "systemctl start chat", until: "failed failed",
		says: []string{"unit chat.service: was killed by SIGKILL ", "hostaudit.yaml:2 names the service of this port"}, remedy: "find out who sent it",
	},
	{
		name: "crashed", how: "segv", service: plainUnit, config: true, act: "systemctl start chat", until: "failed failed", says: []string{"SIGSEGV "}, remedy: "systemctl start chat.service",
	},
	{
		name: "given up", how: "exit", service: "[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=3\n[Service]\nExecStart=/srv/chat 8080\nRestart=on-failure\nRestartSec=50ms\n", config: true,
		act: "systemctl start chat", until: "failed failed", says: []string{"ended with exit status 1 ", "systemd gave up: more than 3 starts in 1m0s"}, remedy: "systemctl reset-failed chat.service",
		heal: "systemctl reset-failed chat",
	},
	{
		name: "again and again", how: "exit", service: "[Service]\nExecStart=/srv/chat 8080\nRestart=always\nRestartSec=600\n", act: "systemctl start chat", until: "activating auto-restart",
		says: []string{"ended with exit status 1 ", "and is started again and again"}, remedy: "find out why", heal: "systemctl stop chat",
	},
	{
		name: "masked", service: plainUnit, vendor: true, config: true, act: "systemctl mask chat", until: "inactive dead", says: []string{"is masked: nothing can start it"},
		remedy: "systemctl unmask chat.service", heal: "systemctl unmask chat",
	},
	{
		name: "disabled", service: plainUnit + wanted, until: "inactive dead",
		says: []string{"does not run, and systemd remembers no start of it; it is disabled: the boot does not start it", "its file names the port"}, remedy: "start it: systemctl enable --now chat.service",
	},
	{
		name: "condition", service: "[Unit]\nConditionPathExists=!/nothing\nConditionPathExists=/chat.conf\n" + plainUnit + wanted, unit: "chat", act: "systemctl enable chat\nsystemctl start chat", until: "inactive dead",
		says: []string{"was not started: ConditionPathExists=/chat.conf does not hold (looked at"}, remedy: "make ConditionPathExists=/chat.conf hold", heal: "touch /chat.conf",
	},
	{
		name: "what it requires", service: "[Unit]\nRequires=db.service\nAfter=db.service\n" + plainUnit, db: "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'test -e /db'\nRemainAfterExit=yes\n", config: true,
		act: "systemctl start chat", until: "inactive dead", says: []string{"does not run: it requires db.service, which failed"}, remedy: "start what it requires", heal: "touch /db\nsystemctl start db",
	},
	{
		name: "ExecStartPre", service: "[Service]\nExecStartPre=/usr/bin/test -e /pre\nExecStart=/srv/chat 8080\n", config: true, act: "systemctl start chat", until: "failed failed",
		says: []string{"its ExecStartPre= (/usr/bin/test) ended with exit status 1 "}, remedy: "find out why", heal: "touch /pre",
	},
	{
		name: "no program", service: "[Service]\nType=exec\nExecStart=/srv/link 8080\n", act: "systemctl start chat", until: "failed failed",
		says: []string{"ended with exit status 203: the program cannot be run"}, remedy: "find out why", heal: "ln -s /srv/chat /srv/link",
	},
	{
		name: "no user", service: "[Service]\nType=exec\nUser=nobodyatall\nExecStart=/srv/chat 8080\n", config: true, act: "systemctl start chat", until: "failed failed",
		says: []string{"ended with exit status 217: its User= does not exist"}, remedy: "find out why", heal: "useradd nobodyatall",
	},
	{
		name: "done", how: "done", service: plainUnit + wanted, config: true, act: "systemctl enable chat\nsystemctl start chat", until: "inactive dead", says: []string{"ended by itself without an error "}, remedy: "Type=forking",
	},
	{
		name: "not ready in time", how: "hang", service: "[Service]\nType=notify\nTimeoutStartSec=1\nExecStart=/srv/chat 8080\n", config: true, act: "systemctl start chat", until: "failed failed",
		says: []string{"took longer to start or stop than systemd waits (TimeoutStartSec= is 1s)"}, remedy: "find out why", heal: "sed -i /Type=/d /etc/systemd/system/chat.service\nsystemctl daemon-reload",
	},
	{
		name: "not ready yet", how: "hang", service: "[Service]\nType=notify\nTimeoutStartSec=infinity\nExecStart=/srv/chat 8080\n", config: true, act: "systemctl start --no-block chat", until: "activating start",
		says: []string{"is being started ", "and has not said that it is ready (Type=notify)"}, remedy: "wait, or find out what it waits for",
		heal: "systemctl stop chat\nsed -i /Type=/d /etc/systemd/system/chat.service\nsystemctl daemon-reload",
	},
	{
		name: "a file that is not used", service: "[Service]\nExecStart=srv/chat 8080\n", config: true, act: "systemctl start chat", until: "inactive dead",
		says: []string{"systemd does not use its file /etc/systemd/system/chat.service: "}, remedy: "mend the file", heal: "sed -i s,=srv,=/srv, /etc/systemd/system/chat.service\nsystemctl daemon-reload",
	},
	{
		name: "stopped", service: plainUnit + wanted, config: true, act: "systemctl enable chat\nsystemctl start chat\nsystemctl stop chat", until: "inactive dead", says: []string{"was stopped"}, remedy: "start it: systemctl start chat.service",
	},
	{
		name: "another port", service: "[Service]\nExecStart=/srv/chat 8081\n", unit: "chat", act: "systemctl start chat", until: "active running",
		says: []string{"runs ", "and does not listen on port 8080"}, remedy: "look at the port in its configuration", heal: "systemctl stop chat\nsed -i s/8081/8080/ /etc/systemd/system/chat.service\nsystemctl daemon-reload",
	},
	{
		name: "a port's usual unit", target: "tcp://198.51.100.20:80", how: "exit", service: "[Unit]\nDescription=web\n[Service]\nExecStart=/srv/chat $PORT\nEnvironmentFile=/etc/default/web\n[Install]\nAlias=nginx.service\n",
		act: "systemctl enable chat\nsystemctl start nginx", until: "failed failed", says: []string{"ended with exit status 1 ", "port 80 is usually its"}, remedy: "journalctl -b -u chat.service",
	},
	{
		name: "a socket unit that failed", service: plainUnit, socket: "[Socket]\nListenStream=198.51.100.99:8080\n[Install]\nWantedBy=sockets.target\n", act: "systemctl start chat.socket", until: "failed failed", of: "chat.socket",
		says: []string{"unit chat.socket: could not listen on Stream 198.51.100.99:8080 ", "it is to listen on the port"}, remedy: "journalctl -b -u chat.socket", heal: "rm /etc/systemd/system/chat.socket\nsystemctl daemon-reload",
	},
	{
		name: "a socket unit that is not started", service: "[Service]\nExecStart=/srv/chat 8081\n", socket: "[Socket]\nListenStream=8080\n[Install]\nWantedBy=sockets.target\n", until: "inactive dead", of: "chat.socket",
		says: []string{"unit chat.socket: is not started, and would listen on ", "it is disabled: the boot does not start it"}, remedy: "systemctl enable --now chat.socket",
		heal: "rm /etc/systemd/system/chat.socket\nsed -i s/8081/8080/ /etc/systemd/system/chat.service\nsystemctl daemon-reload",
	},
	{
		name: "a socket closed for its service", how: "exit", service: "[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=2\n[Service]\nExecStart=/srv/chat\n", socket: "[Socket]\nListenStream=8080\n",
		act: "systemctl start chat.socket\npython3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8080))'", until: "failed failed", of: "chat.socket",
		says: []string{"unit chat.socket: its service ended too often, so systemd closed the socket", "unit chat.service: ended with exit status 1"}, remedy: "systemctl reset-failed chat.socket",
		heal: "systemctl reset-failed chat.socket chat.service\nrm /etc/systemd/system/chat.socket\nsed -i 's,srv/chat,srv/chat 8080,' /etc/systemd/system/chat.service\nsystemctl daemon-reload",
	},
}

// TestUnits: how the real systemd says that the unit of the port ended, each way
// beside its healthy twin, which serves.
func TestUnits(t *testing.T) {
	t.Parallel()
	base := lab.BootBase(t)
	f := newField(t)
	root := lab.BootCopy(t, base)
	write(t, root, "srv/chat", chat)
	write(t, root, "etc/default/web", "PORT=80\n")
	if err := os.Chmod(filepath.Join(root, "srv/chat"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := f.server.Boot(t, root)
	f.serverRoot = b.Root
	for _, c := range unitCases {
		t.Run(c.name, func(t *testing.T) { c.prove(t, f, b) })
	}
	t.Run("killed for memory", func(t *testing.T) {
		c := unitCase{
			how: "eat", service: plainUnit, config: true, until: "failed failed",
			says:   []string{"unit chat.service: was killed by SIGKILL ", "kernel's log: killed python3 (pid ", "the limit of the control group /", "/chat.service was met"},
			remedy: "raise the memory limit of /", heal: "rm /go",
		}
		c.meanwhile = func(t *testing.T) {
			sh(t, b, false, "systemctl start chat")
			confine(t, b, "chat.service", 16<<20)
			sh(t, b, false, "touch /go")
		}
		c.prove(t, f, b)
	})
	t.Run("crashed by itself", func(t *testing.T) {
		c := unitCase{
			service: "[Service]\nEnvironmentFile=/code\nExecStart=/usr/bin/python3 -c ${CODE} 8080\n", config: true, until: "failed failed", act: "systemctl start chat",
			says: []string{"SIGSEGV ", "kernel's log: python3 (pid ", "segfault at "}, remedy: "mend the program that crashes",
			heal: "echo 'CODE=import socket; s = socket.create_server((str(), 8080)); [s.accept()[0].close() for _ in iter(int, 1)]' >/code",
		}
		write(t, b.Root, "code", "CODE=import ctypes; ctypes.string_at(0)\n")
		c.prove(t, f, b)
	})
	t.Run("an earlier report names the unit", func(t *testing.T) {
		write(t, b.Root, "var/lib/hostaudit/reports/20261126T060000.000000001Z.json",
			`{"schema": "hostaudit/scan/v1", "listeners": [{"proto": "tcp", "address": "0.0.0.0", "port": 8080, "netns": "", "process": {"pid": 901, "name": "chatd", "unit": "chat.service"}}]}`)
		c := unitCase{
			how: "exit", service: "[Service]\nExecStart=/srv/chat $PORT\nEnvironmentFile=/code\n", until: "failed failed", act: "systemctl start chat",
			says:   []string{"report of 2026-11-26 06:00 UTC: chatd (pid 901) of chat.service listened on tcp 0.0.0.0:8080", "it held the port in the report of 2026-11-26 06:00", "ended with exit status 1 "},
			remedy: "find out why", heal: "echo PORT=8080 >/code",
		}
		write(t, b.Root, "code", "PORT=8080\n")
		c.prove(t, f, b)
	})
	t.Run("by way of the system bus", func(t *testing.T) {
		// As for a user without privilege, who may not use systemd's own socket.
		if err := os.Remove(filepath.Join(b.Root, "run/systemd/private")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sh(t, b, false, "kill -TERM 1") }) // it makes its socket again
		c := unitCases[0]
		write(t, b.Root, "how", c.how)
		write(t, b.Root, "etc/systemd/system/chat.service", c.service)
		bus := func(commands string) {
			sh(t, b, false, "export SYSTEMCTL_FORCE_BUS=1; "+commands)
		}
		bus("systemctl daemon-reload; systemctl start chat")
		said := ""
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end) && !strings.Contains(said, c.says[0]); {
			r := f.ask(t, onServer, target, diagnose.Options{})
			complete(t, r)
			said = flat(t, r)
		}
		if !strings.Contains(said, c.says[0]) {
			t.Errorf("no %q in\n%s", c.says[0], said)
		}
	})
}

// confine moves the processes of a unit into a control group with a memory limit
// of its own, which ends with the test.
func confine(t *testing.T, b *lab.Booted, unit string, bytes int) {
	t.Helper()
	base, limit := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	if text, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil && strings.Contains(string(text), "memory") {
		base, limit = "/sys/fs/cgroup", "memory.max"
	}
	outer := fmt.Sprintf("%s/hostaudit-test-%d.slice", base, os.Getpid())
	inner := filepath.Join(outer, unit)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(outer, 0o755))
	t.Cleanup(func() { os.Remove(outer) })
	if limit == "memory.max" {
		must(os.WriteFile(outer+"/cgroup.subtree_control", []byte("+memory"), 0))
	}
	must(os.Mkdir(inner, 0o755))
	t.Cleanup(func() { os.Remove(inner) })
	must(os.WriteFile(filepath.Join(inner, limit), []byte(strconv.Itoa(bytes)), 0))
	move := func() error {
		procs, err := os.ReadFile(filepath.Join(b.Root, "sys/fs/cgroup/system.slice", unit, "cgroup.procs"))
		must(err)
		if len(strings.Fields(string(procs))) == 0 {
			t.Fatalf("%s has no processes", unit)
		}
		for _, pid := range strings.Fields(string(procs)) {
			if err := os.WriteFile(filepath.Join(inner, "cgroup.procs"), []byte(pid), 0); err != nil {
				return err
			}
		}
		return nil
	}
	err := move()
	for try := 0; errors.Is(err, unix.ESRCH) && try < 20; try++ { // one has ended since, perhaps after a fork
		err = move()
	}
	must(err)
}

// sh runs commands, one a line, in the booted system; may: they may fail.
func sh(t *testing.T, b *lab.Booted, may bool, commands string) {
	t.Helper()
	if !may {
		commands = "set -e\n" + commands
	}
	if out, err := b.Run(t, "sh", "-c", commands); err != nil && !may {
		t.Fatalf("%s: %v\n%s", commands, err, out)
	}
}

func (c *unitCase) prove(t *testing.T, f *field, b *lab.Booted) {
	if c.target == "" {
		c.target = target
	}
	dir := "etc/systemd/system/"
	if c.vendor {
		dir = "usr/lib/systemd/system/"
	}
	for name, text := range map[string]string{dir + "chat.service": c.service, "etc/systemd/system/chat.socket": c.socket, "etc/systemd/system/db.service": c.db} {
		if text != "" {
			write(t, b.Root, name, text)
			t.Cleanup(func() { os.Remove(filepath.Join(b.Root, name)) })
		}
	}
	t.Cleanup(func() {
		sh(t, b, true, "systemctl stop chat.socket chat\nsystemctl disable chat\nrm -f /etc/systemd/system/nginx.service\nsystemctl reset-failed")
	})
	write(t, b.Root, "how", c.how+"\n")
	sh(t, b, true, "systemctl daemon-reload\n"+c.act)
	if c.meanwhile != nil {
		c.meanwhile(t)
	}
	name := c.of
	if name == "" {
		name = "chat.service"
	}
	awaitUnit(t, b, name, c.until)

	o := diagnose.Options{Files: diagnose.HostOptions{Unit: c.unit}}
	if c.config {
		o.Config = &audit.Config{Services: []audit.Service{{Name: "chat", Port: 8080, Proto: "tcp", Source: "hostaudit.yaml:2"}}}
	}
	r := f.ask(t, onServer, c.target, o)
	blames(t, r, onServer, diagnose.NotListening, diagnose.Confirmed)
	said := flat(t, r)
	for _, want := range c.says {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, text(t, r))
		}
	}
	if got := r.Cause(diagnose.NotListening).Remedy; !strings.Contains(got, c.remedy) {
		t.Errorf("the remedy is %q, want %q in it", got, c.remedy)
	}
	complete(t, r)
	keep(t, c.name, r)
	if t.Failed() {
		return
	}

	// The twin.
	write(t, b.Root, "how", "serve\n")
	sh(t, b, false, c.heal+"\nsystemctl start chat")
	awaitPort(t, f, c.target[len("tcp://"):])
	clear_(t, f.ask(t, onServer, c.target, o), onServer)
}

// complete demands that systemd and the kernel could be asked.
func complete(t *testing.T, r *diagnose.Report) {
	t.Helper()
	for _, g := range r.Incomplete {
		if g.What == "systemd" || g.What == "the kernel's log" || g.What == "earlier reports" {
			t.Errorf("%s: %s", g.What, g.Why)
		}
	}
}

// awaitUnit waits until a unit is in a state.
func awaitUnit(t *testing.T, b *lab.Booted, name, want string) {
	t.Helper()
	var got string
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(150 * time.Millisecond) {
		out, err := b.Run(t, "systemctl", "show", "--value", "-p", "ActiveState,SubState", name)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got = strings.Join(strings.Fields(out), " "); got == want {
			return
		}
	}
	out, _ := b.Run(t, "systemctl", "status", "--no-pager", name)
	t.Fatalf("%s is %q, not %q\n%s", name, got, want, out)
}

// awaitPort waits until the server serves a port.
func awaitPort(t *testing.T, f *field, addr string) {
	t.Helper()
	err := fmt.Errorf("not tried")
	for end := time.Now().Add(60 * time.Second); err != nil && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		f.server.Do(func() {
			var c net.Conn
			if c, err = net.DialTimeout("tcp", addr, time.Second); err == nil {
				c.Close()
			}
		})
	}
	if err != nil {
		t.Fatalf("%s is not served: %v", addr, err)
	}
}
