package main

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostaudit/hostaudit/audit/checks"
	"github.com/hostaudit/hostaudit/cmd/hostaudit/config"
	"github.com/hostaudit/hostaudit/packaging/manual"
)

// man writes the manual pages of this very program into a directory; the packages
// are made with it.
func (a *app) man() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages into DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for name, page := range a.book(cmd.Root()).Pages() {
				if err := writeWhole(filepath.Join(args[0], name), 0o644, page); err != nil {
					return usage(err)
				}
			}
			return nil
		},
	}
}

func (a *app) book(root *cobra.Command) manual.Book {
	b := manual.Book{Root: root, Checks: checks.All(), Version: version(), Date: time.Now()}
	if s, err := strconv.ParseInt(getenv(a.environ, "SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		b.Date = time.Unix(s, 0)
	}
	// Every setting is a flag of some command.
	for _, c := range manual.Commands(root) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			named := func(s manual.Setting) bool { return s.Name == f.Name }
			if _, ok := f.Value.(*config.Value); ok && !slices.ContainsFunc(b.Settings, named) {
				b.Settings = append(b.Settings, manual.Setting{Name: f.Name, Default: f.DefValue, Usage: f.Usage})
			}
		})
	}
	slices.SortFunc(b.Settings, func(x, y manual.Setting) int { return strings.Compare(x.Name, y.Name) })
	return b
}
