package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/checks"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/remedy"
	"github.com/hostaudit/hostaudit/audit/report"
	"github.com/hostaudit/hostaudit/cmd/hostaudit/config"
	"github.com/hostaudit/hostaudit/firewall/owner"
)

func (a *app) fix() *cobra.Command {
	var c common
	var o fixOptions
	cmd := &cobra.Command{
		Use:   "fix [FINDING…]",
		Short: "Print the exact plan that mends findings; with --apply carry it out",
		Long: `fix prints what it would change, through whom, what undoes it, and its effect:
which sources can reach which listeners afterwards that could not before. It
changes nothing without --apply.

With --apply the change is made live first, verified from a fresh reading, and
only then written to disk. Whatever fails, hangs or is killed is rolled back, by
this run, by a watchdog in another process, or at the next boot. With --confirm
(and for risky changes always) it is kept only when 'hostaudit confirm' comes
from a new login before --deadline; when the login that it was made over ends
before that, it is rolled back at once.

Exit codes: 0 done or nothing to do, 2 the command line or configuration is
wrong, 3 the host could not be read completely enough, 4 it failed and was
rolled back, 5 it failed and something is left, which is listed, 6 refused
before anything was written.`,
		Example: `  sudo hostaudit fix
  sudo hostaudit fix firewall.port-blocked --apply
  sudo hostaudit fix sysctl.ephemeral-range-small --apply --yes`,
		Args: func(_ *cobra.Command, ids []string) error {
			for _, id := range ids {
				if audit.Find(checks.All(), id) == nil {
					return fmt.Errorf("no finding %q; see: hostaudit checks", id)
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, ids []string) error {
			s, err := a.settings(cmd, &c, "text", "json")
			if err != nil {
				return err
			}
			return a.runFix(s, &c, o, ids)
		},
	}
	c.configFlag(cmd)
	c.outputFlag(cmd)
	c.rootFlag(cmd)
	setting(cmd, "format", "color", "ascii", "width", "quick", "sample", "profile")
	f := cmd.Flags()
	f.BoolVar(&o.apply, "apply", false, "carry the plan out")
	f.BoolVar(&o.yes, "yes", false, "do not ask before carrying it out")
	f.BoolVar(&o.confirm, "confirm", false, "keep the change only when 'hostaudit confirm' says so")
	f.DurationVar(&o.deadline, "deadline", 2*time.Minute, "roll back what was not confirmed after `TIME`")
	f.StringVar(&o.owner, "owner", "", "take `OWNER` for the manager of the ruleset where there are several")
	f.BoolVar(&o.configuration, "configuration", false, "change servers' own configuration, too (bind addresses)")
	f.BoolVar(&o.anyNamespace, "any-namespace", false, "apply although this is not the machine's first network namespace")
	return cmd
}

type fixOptions struct {
	apply, yes, confirm, configuration, anyNamespace bool
	deadline                                         time.Duration
	owner                                            string
}

// system is the host that changes are made on.
func (a *app) system(root string, read func(context.Context) (*audit.Snapshot, error)) (*remedy.System, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	sys := &remedy.System{Root: root, Read: read, Tool: version(), Login: remedy.FindLogin("/proc", os.Getpid()), Say: a.warn}
	sys.Defaults()
	var args []string
	if sys.Root != "/" {
		args = []string{"--root", sys.Root}
	}
	sys.Watch = remedy.NewWatchdog(sys, exe, args)
	return sys, nil
}

// reading takes a reading for a plan or for its verification: no samples but the
// first time, no waiting.
func reading(root string) func(context.Context) (*audit.Snapshot, error) {
	return func(ctx context.Context) (*audit.Snapshot, error) {
		return collect.Host(ctx, collect.Options{Root: root, Tool: version(), Quick: true, NoCensus: true})
	}
}

func (a *app) runFix(s *config.Settings, c *common, o fixOptions, ids []string) error {
	if o.deadline < time.Second || o.deadline > 24*time.Hour {
		return usagef("--deadline %s: between 1s and 24h", o.deadline)
	}
	// A hang-up of the login is a rollback.
	ctx, stop := signal.NotifyContext(a.ctx, unix.SIGHUP)
	defer stop()
	sys, err := a.system(s.Root, reading(s.Root))
	if err != nil {
		return err
	}
	snap, err := a.read(c, s, collect.Options{})
	if err != nil {
		return err
	}
	in := remedy.Input{Snapshot: snap, Config: &s.Audit, Checks: checks.All(), Findings: ids, Owner: owner.Kind(o.owner), Configuration: o.configuration}
	if err := sys.Gather(&in); err != nil {
		return err
	}
	plan, err := remedy.NewPlan(in)
	if err != nil {
		return err
	}
	err = a.emit(c.output, 0o644, func(w io.Writer) error {
		if s.Format == "json" {
			return report.JSON(w, plan)
		}
		return cleanLines(w, plan.Text(ids, o.apply))
	})
	switch {
	case err != nil && o.apply:
		// Nobody has seen it.
		return fmt.Errorf("%w: the plan could not be shown: %w", remedy.ErrRefused, err)
	case err != nil || !o.apply:
		if waits := sys.Pending(); err == nil && waits != nil && !errors.Is(waits, fs.ErrPermission) {
			a.warn("%s", strings.TrimPrefix(waits.Error(), remedy.ErrRefused.Error()+": "))
		}
		return err
	}
	if len(plan.Steps) == 0 {
		return sys.Apply(ctx, plan, remedy.ApplyOptions{})
	}
	if !o.anyNamespace {
		switch first, err := remedy.FirstNamespace(); {
		case err != nil:
			return fmt.Errorf("%w: whether this is the machine's first network namespace cannot be told (%w); --any-namespace applies all the same", remedy.ErrRefused, err)
		case !first:
			return fmt.Errorf("%w: this is not the machine's first network namespace; --any-namespace applies all the same", remedy.ErrRefused)
		}
	}
	if !o.yes {
		if err := a.ask(); err != nil {
			return err
		}
	}
	wait := plan.Risky || o.confirm
	err = sys.Apply(ctx, plan, remedy.ApplyOptions{
		Again: func(ctx context.Context) (*remedy.Plan, error) {
			again := in
			now, err := sys.Read(ctx)
			if err != nil {
				return nil, err
			}
			// Counters and the census are those of the plan: they move all the time, and
			// what they say is no longer in question.
			now.Samples, now.Census, now.SockStat, now.Conntrack = snap.Samples, snap.Census, snap.SockStat, snap.Conntrack
			again.Snapshot = now
			if err := sys.Gather(&again); err != nil {
				return nil, err
			}
			return remedy.NewPlan(again)
		},
		Verify: sys.Verifier(plan, snap, in.Paths), Wait: wait, Deadline: o.deadline,
	})
	if err == nil {
		a.warn("done; undo it with: hostaudit rollback %s", plan.ID)
	}
	return err
}

// ask wants a word from a person.
func (a *app) ask() error {
	if f, ok := a.stdin.(*os.File); ok && !term.IsTerminal(int(f.Fd())) {
		return usagef("--apply asks before it changes anything, and there is no terminal to ask on: give --yes")
	}
	_, _ = fmt.Fprint(a.stderr, "Carry it out? [y/N] ")
	answer, err := bufio.NewReader(io.LimitReader(a.stdin, 1000)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: read the answer: %w", remedy.ErrRefused, err)
	}
	if !slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(answer))) {
		return fmt.Errorf("%w: the answer was no", remedy.ErrRefused)
	}
	return nil
}

// cleanLines writes text line by line, made harmless.
func cleanLines(w io.Writer, text string) error {
	for line := range strings.Lines(text) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(report.Clean(strings.TrimSuffix(line, "\n")), " ")); err != nil {
			return err
		}
	}
	return nil
}

// changeCode is the exit code of a change that did not end well, 0 for other
// errors.
func changeCode(err error) int {
	switch {
	case errors.Is(err, remedy.ErrLeft):
		return 5
	case errors.Is(err, remedy.ErrRolledBack):
		return 4
	case errors.Is(err, remedy.ErrRefused):
		return 6
	}
	return 0
}
