package main

import (
	"github.com/spf13/cobra"
)

func (a *app) confirm() *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use:   "confirm",
		Short: "Keep the change that waits to be confirmed",
		Long: `confirm keeps the change of 'hostaudit fix --apply --confirm'. Over SSH it must
come from a new login: a connection that was open before the change proves
nothing about new ones. What somebody else has undone meanwhile is not kept: the
rest is rolled back.

Exit codes: 0 kept, 4 it was rolled back (too late, or writing it to disk
failed), 5 something is left, 6 there is nothing to confirm, or not by this
login.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			sys, err := a.system(root, reading(root))
			if err != nil {
				return err
			}
			j, err := sys.Confirm(a.ctx)
			if err == nil {
				a.warn("change %s is kept", j.ID)
			}
			return err
		},
	}
	rootOf(cmd, &root)
	return cmd
}

// rootOf adds --root for commands that read no configuration.
func rootOf(cmd *cobra.Command, root *string) {
	cmd.Flags().StringVar(root, "root", "", "take the host's files from beneath `DIR`")
}
