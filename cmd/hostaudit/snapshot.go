package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hostaudit/hostaudit/audit/collect"
)

func (a *app) snapshot() *cobra.Command {
	var c common
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Save everything scan reads in one file",
		Long: `snapshot saves everything scan reads in one file, as the kernel gave it. The
other commands answer from it with --snapshot FILE, on any machine, as they
would have here: for bug reports, and for looking later at how the host was.

The file holds names of processes, their command lines, addresses and rules:
treat it like a configuration backup. It is written for its owner alone.`,
		Example: `  sudo hostaudit snapshot -o web-1.snapshot
  hostaudit scan --snapshot web-1.snapshot`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.settings(cmd, &c)
			if err != nil {
				return err
			}
			if f, ok := a.stdout.(*os.File); ok && c.output == "" && term.IsTerminal(int(f.Fd())) {
				return &usageError{errors.New("a snapshot is no text to read on a terminal"), "hostaudit snapshot -o FILE"}
			}
			snap, capture, err := collect.Record(a.ctx, a.options(s, collect.Options{}))
			if err != nil {
				return fmt.Errorf("read the host: %w", err)
			}
			if err := a.emit(c.output, 0o600, func(w io.Writer) error { return collect.Save(w, capture) }); err != nil {
				return err
			}
			missing := false
			for _, g := range snap.Gaps {
				if !g.Minor {
					a.warn("could not read %s: %s", g.What, g.Why)
					missing = true
				}
			}
			if missing {
				return errIncomplete
			}
			return nil
		},
	}
	c.configFlag(cmd)
	c.outputFlag(cmd)
	c.rootFlag(cmd)
	setting(cmd, "quick", "sample")
	return cmd
}
