package main

import (
	"github.com/spf13/cobra"
)

func (a *app) recover() *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Undo a change that was interrupted (at boot)",
		Long: `recover undoes what an interrupted 'hostaudit fix --apply' left: the unit
hostaudit-recover.service runs it at boot, before the network is up. A change that
still waits for its confirmation is left alone.

Exit codes: 0 nothing to do, or all of it undone; 5 something is left, which is
listed; 6 refused: another run is at work, or the journal is not sound.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			sys, err := a.system(root, reading(root))
			if err != nil {
				return err
			}
			return sys.Recover(a.ctx)
		},
	}
	rootOf(cmd, &root)
	return cmd
}
