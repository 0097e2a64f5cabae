package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/checks"
	"github.com/hostaudit/hostaudit/audit/report"
)

func (a *app) checks() *cobra.Command {
	var c common
	cmd := &cobra.Command{
		Use:   "checks [ID]",
		Short: "List what is looked for; explain one check or finding",
		Long: `checks lists everything that scan looks for. With the id of a check or of a
finding, or the name of a kernel setting, it explains what it means, how it
is judged and what to do, without network.`,
		Example: `  hostaudit checks
  hostaudit checks firewall.port-blocked
  hostaudit checks net.ipv4.tcp_tw_reuse`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.settings(cmd, &c, "text", "json")
			if err != nil {
				return err
			}
			list := checks.All()
			if len(args) == 1 {
				one := checks.Explain(args[0])
				if one == nil {
					return &usageError{err: unknownCheck(args[0]), hint: "hostaudit checks lists them"}
				}
				list = []*audit.Check{one}
			}
			return a.emit(c.output, 0o644, func(w io.Writer) error {
				switch {
				case s.Format == "json":
					return report.JSON(w, report.Catalogue(list))
				case len(args) == 1:
					return report.CheckText(w, list[0], a.layout(s, c.output != "", -1))
				}
				return report.ChecksText(w, list, checks.Informative(), a.layout(s, c.output != "", -1))
			})
		},
	}
	c.configFlag(cmd)
	c.outputFlag(cmd)
	setting(cmd, "format", "color", "ascii", "width")
	return cmd
}

func unknownCheck(id string) error { return fmt.Errorf("no check or finding is called %q", id) }
