package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/hostaudit/hostaudit/audit/report"
	"github.com/hostaudit/hostaudit/cmd/hostaudit/config"
)

// app is one run of the program: where it reads and writes.
type app struct {
	ctx            context.Context
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string
}

// usageError is a mistake on the command line or in the configuration, with what
// to do about it.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string   { return e.err.Error() }
func (e *usageError) Unwrap() []error { return []error{errUsage, e.err} }

func usage(err error) error {
	if err == nil {
		return nil
	}
	return &usageError{err: err}
}

func usagef(format string, args ...any) error { return usage(fmt.Errorf(format, args...)) }

// complain says on stderr what went wrong. What a report has said already is not
// said again.
func (a *app) complain(err error) {
	if err == nil || errors.Is(err, unix.EPIPE) {
		return
	}
	if e := errors.Unwrap(err); e == nil && (errors.Is(err, errFindings) || errors.Is(err, errIncomplete)) {
		return
	}
	fmt.Fprintf(a.stderr, "hostaudit: %s\n", report.Clean(err.Error()))
	var u *usageError
	if errors.As(err, &u) && u.hint != "" {
		fmt.Fprintf(a.stderr, "hostaudit: %s\n", report.Clean(u.hint))
	}
}

// warn says something on stderr.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.stderr, "hostaudit: %s\n", report.Clean(fmt.Sprintf(format, args...)))
}

// command builds the tree of commands.
func (a *app) command(args []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "hostaudit",
		Short: "Find out why clients cannot connect to this host",
		Long: `hostaudit reads the listeners, the rules of nftables and iptables,
addresses, routes and kernel settings of this host, and says who can reach
each port, and which rule, address, route or setting keeps the others out.
Only 'fix --apply' changes the host.

Start with:  sudo hostaudit scan`,
		SilenceUsage: true, SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{errors.New("no command given"), "see: hostaudit --help"}
			}
			return &usageError{fmt.Errorf("unknown command %q", args[0]), "see: hostaudit --help" + suggestion(cmd, args[0])}
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{err, "see: " + cmd.CommandPath() + " --help"}
	})
	root.SetHelpCommand(&cobra.Command{Hidden: true, Use: "no-help"})
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(a.scan(), a.reach(), a.ports(), a.fix(), a.confirm(), a.rollback(), a.history(), a.recover(), a.snapshot(), a.checks(), a.version(), a.diff(), a.man(), a.diagnose(), a.watch())
	root.InitDefaultCompletionCmd(args...)
	complete(root)
	for _, c := range root.Commands() {
		wrapArgs(c)
	}
	return root
}

// wrapArgs makes mistakes in arguments mistakes of usage.
func wrapArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if err == nil || errors.Is(err, errUsage) {
				return err
			}
			return &usageError{err, "see: " + cmd.CommandPath() + " --help"}
		}
	}
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
}

func suggestion(cmd *cobra.Command, name string) string {
	cmd.SuggestionsMinimumDistance = 2
	if s := cmd.SuggestionsFor(name); len(s) > 0 {
		return "; did you mean " + strings.Join(s, " or ") + "?"
	}
	return ""
}

// layout decides how text looks: what was asked for, else what the output is.
func (a *app) layout(s *config.Settings, toFile bool, exit int) report.Options {
	o := report.Options{Width: s.Width, ASCII: s.ASCII || !utf8Locale(a.environ), Exit: exit}
	fd := -1
	if f, ok := a.stdout.(*os.File); ok && !toFile {
		fd = int(f.Fd())
	}
	terminal := fd >= 0 && term.IsTerminal(fd)
	switch s.Color {
	case "always":
		o.Color = true
	case "auto":
		o.Color = terminal && getenv(a.environ, "NO_COLOR") == "" && getenv(a.environ, "TERM") != "dumb"
	}
	if o.Width == 0 {
		o.Width = 80
		if terminal {
			if w, _, err := term.GetSize(fd); err == nil && w >= 40 {
				o.Width = w
			}
		}
	}
	return o
}

// utf8Locale says whether the locale takes UTF-8 (man 7 locale: the first that is
// set counts); where none is set it is taken to.
func utf8Locale(environ []string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(getenv(environ, name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return true
}

func getenv(environ []string, name string) string {
	for _, kv := range slices.Backward(environ) {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			return v
		}
	}
	return ""
}
