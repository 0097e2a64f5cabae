package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/hostaudit/hostaudit/cmd/hostaudit/config"
)

// common are the flags that several commands have.
type common struct {
	config, output, root, snapshot string
}

// oneTarget demands one argument, and says what it is where there is none.
func oneTarget(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return errors.New("no target given: " + what)
		}
		return cobra.MaximumNArgs(1)(cmd, args)
	}
}

// setting adds the flags of settings that a command uses.
func setting(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		v, help, err := config.Flag(name)
		if err != nil {
			panic(err) // a name that stands in this program
		}
		f := cmd.Flags().VarPF(v, name, "", help)
		if v.IsBoolFlag() {
			f.NoOptDefVal = "true"
		}
	}
}

func (c *common) configFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.config, "config", "", "configuration `FILE`, over "+config.DefaultFile)
}

func (c *common) outputFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&c.output, "output", "o", "", "write the report to `FILE`, whole or not at all")
}

func (c *common) rootFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.root, "root", "", "take the host's configuration files from beneath `DIR`")
}

func (c *common) snapshotFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.snapshot, "snapshot", "", "answer from a saved snapshot `FILE` instead of the live host")
}

// settings reads the configuration for a command. An answer from a snapshot is
// about another host, whose services this host's configuration does not know.
func (a *app) settings(cmd *cobra.Command, c *common, formats ...string) (*config.Settings, error) {
	s, err := config.Load(config.Options{
		Skip: c.snapshot != "", Explicit: c.config, Root: c.root, Environ: a.environ, Flags: cmd.Flags(), EUID: os.Geteuid(),
	})
	if err != nil {
		return nil, usage(err)
	}
	return s, usage(s.Restrict(formats...))
}
