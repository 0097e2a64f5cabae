package remedy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/sysctl"
)

// TestMain is also the program that the crash tests run, kill and watch: this very
// binary, told by its environment what to do. It works beneath a root of the
// test's own and in the network namespace that the test started it in.
func TestMain(m *testing.M) {
	if what := os.Getenv("REMEDY_CHILD"); what != "" {
		runtime.LockOSThread() // strace counts system calls by thread
		os.Exit(childMain(what))
	}
	if len(os.Args) > 1 && os.Args[1] == ErrandCommand {
		os.Exit(RunErrand(os.Stdin, os.Stdout))
	}
	if len(os.Args) > 1 && os.Args[1] == "rollback" {
		os.Exit(guardMain(os.Args[2:]))
	}
	lab.Main(m)
}

// guardMain is the watchdog as child.Arm starts it: --root DIR ID
// --if-unconfirmed --after TIME.
func guardMain(args []string) int {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM)
	s := &System{Root: args[1], Watch: noWatchdog{}}
	if !strings.Contains(s.Root, "remedy-test") {
		return 99
	}
	s.Defaults()
	s.Poll = 20 * time.Millisecond
	after, err := time.ParseDuration(args[5])
	if err != nil {
		return 99
	}
	return childExit(s.Guard(context.Background(), args[2], after, os.NewFile(ReadyFD, "ready")))
}

// childExit are the exit codes of the contract.
func childExit(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrLeft):
		return 5
	case errors.Is(err, ErrRolledBack):
		return 4
	case errors.Is(err, ErrRefused):
		return 6
	}
	return 1
}

// noWatchdog stands where the watchdog is not what is tested.
type noWatchdog struct{}

func (noWatchdog) Arm(context.Context, string, time.Duration) (string, error) { return "none", nil }
func (noWatchdog) Disarm(context.Context, string)                             {}

func childSystem() *System {
	s := &System{Root: os.Getenv("REMEDY_ROOT"), Watch: noWatchdog{}, Tool: "test",
		Say: func(f string, a ...any) { fmt.Fprintf(os.Stderr, "say: "+f+"\n", a...) }}
	s.Defaults()
	s.Poll = 20 * time.Millisecond
	s.Read = func(ctx context.Context) (*audit.Snapshot, error) {
		return collect.Host(ctx, collect.Options{Root: s.Root, Quick: true, NoCensus: true})
	}
	if d, err := time.ParseDuration(os.Getenv("REMEDY_TOOLTIME")); err == nil {
		s.ToolTime = d
	}
	return s
}

func childMain(what string) int {
	s := childSystem()
	// Never on the machine itself: a root of the test's own, another network
	// namespace.
	if s.Root == "" || s.Root == "/" || !strings.Contains(s.Root, "remedy-test") {
		fmt.Fprintln(os.Stderr, "refuse to work on", s.Root)
		return 99
	}
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if outer := os.Getenv(lab.Marker); err != nil || !strings.HasPrefix(outer, "net:[") || own == outer {
		fmt.Fprintf(os.Stderr, "refuse to work in the network namespace %s (%q, %v)\n", own, outer, err)
		return 99
	}
	signal.Ignore(unix.SIGPIPE) // as the program does
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGHUP, unix.SIGINT, unix.SIGTERM)
	defer stop()
	if s.Login.Connection = os.Getenv("REMEDY_LOGIN"); s.Login.Connection == "real" {
		s.Login = FindLogin("/proc", os.Getpid())
	}
	deadline := 20 * time.Second
	if d := os.Getenv("REMEDY_DEADLINE"); d != "" {
		if deadline, err = time.ParseDuration(d); err != nil {
			return 99
		}
		exe, err := os.Executable()
		if err != nil {
			return 99
		}
		s.Watch = &child{exe, []string{"--root", s.Root}}
	}
	switch what {
	case "apply":
		var p *Plan
		if p, err = childPlan(os.Getenv("REMEDY_PLAN")); err == nil {
			err = s.Apply(ctx, p, ApplyOptions{Wait: os.Getenv("REMEDY_WAIT") != "", Deadline: deadline})
		}
	case "login":
		err = tellLogin(ctx, s)
	case "recover":
		err = s.Recover(ctx)
	case "rollback":
		err = s.Rollback(ctx, "", false)
	case "confirm":
		_, err = s.Confirm(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return childExit(err)
}

// tellLogin prints what is found out about the login that this process came by.
func tellLogin(ctx context.Context, s *System) error {
	snap, err := s.Read(ctx)
	if err != nil {
		return err
	}
	paths, err := s.operators(snap)
	if err != nil {
		return err
	}
	text, err := json.Marshal(toldLogin{s.Login, paths})
	fmt.Printf("LOGIN %s\n", text)
	return err
}

type toldLogin struct {
	Login Login
	Paths []Path
}

func childPlan(text string) (*Plan, error) {
	p := &Plan{}
	if err := json.Unmarshal([]byte(text), &p.Steps); err != nil {
		return nil, err
	}
	p.number()
	return p, nil
}

// The settings that the crash tests change: of the namespace, with known values.
const (
	keyA, oldA, newA = sysctl.Key("net.core.somaxconn"), "4096", "8192"
	keyB, oldB, newB = sysctl.Key("net.ipv4.ip_local_port_range"), "32768\t60999", "20000 60999"
)

// testSteps is the plan of the crash tests: two live settings, the drop-in and the
// list of modules.
func testSteps(t testing.TB, a string) []Step {
	t.Helper()
	ca := sysctl.Change{Key: keyA, Before: oldA, After: a, Reason: "a test"}
	cb := sysctl.Change{Key: keyB, Before: oldB, After: newB, Reason: "a test"}
	d, err := sysctl.ParseDropIn(nil)
	if err != nil {
		t.Fatal(err)
	}
	data := d.Set(ca, cb).Render()
	return []Step{
		{Phase: Live, Sysctl: &ca}, {Phase: Live, Sysctl: &cb},
		{Phase: Persist, File: &FileChange{Path: sysctl.DropInPath, After: data, HasAfter: true}},
		{Phase: Persist, File: &FileChange{Path: sysctl.ModulesDropInPath, Before: []byte("# old\n"), HasBefore: true, After: []byte("# new\n"), HasAfter: true}},
	}
}
