package main

import (
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/remedy"
)

func (a *app) rollback() *cobra.Command {
	var root string
	var ifUnconfirmed bool
	var after time.Duration
	cmd := &cobra.Command{
		Use:   "rollback [ID]",
		Short: "Undo a change of fix",
		Long: `rollback undoes the change that is at work, otherwise the last one that was
kept, or the one named. It restores only what still is as the change left it; what
somebody else has changed since is left alone and listed.

Exit codes: 0 undone, 5 something is left, which is listed, 6 refused.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			sys, err := a.system(root, reading(root))
			if err != nil {
				return err
			}
			id := ""
			if len(args) > 0 {
				id = args[0]
			}
			if after > 0 {
				// The watchdog: only its deadline or the end of the change end it.
				signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM)
				return sys.Guard(a.ctx, id, after, os.NewFile(remedy.ReadyFD, "ready"))
			}
			if err := sys.Rollback(a.ctx, id, ifUnconfirmed); err != nil {
				return err
			}
			if !ifUnconfirmed {
				a.warn("everything is as it was before it")
			}
			return nil
		},
	}
	rootOf(cmd, &root)
	cmd.Flags().BoolVar(&ifUnconfirmed, "if-unconfirmed", false, "undo it only if it was not confirmed (the watchdog)")
	cmd.Flags().DurationVar(&after, "after", 0, "wait `TIME` first")
	if err := cmd.Flags().MarkHidden("after"); err != nil {
		panic(err) // a flag that stands above
	}
	return cmd
}
