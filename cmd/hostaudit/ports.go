package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/report"
)

func (a *app) ports() *cobra.Command {
	var c common
	cmd := &cobra.Command{
		Use:   "ports",
		Short: "Show how the local ports of outgoing connections are used",
		Long: `ports shows how much of the ephemeral port space each destination uses.
Connections to different destinations share local ports, those to one
address and port cannot: when they are used up, connect() fails with "Cannot
assign requested address".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.settings(cmd, &c, "text", "json")
			if err != nil {
				return err
			}
			snap, err := a.read(&c, s, collect.Options{Quick: true})
			if err != nil {
				return err
			}
			a.ownNamespace(snap)
			p := audit.Ports(snap)
			err = a.emit(c.output, 0o644, func(w io.Writer) error {
				if s.Format == "json" {
					return report.JSON(w, p)
				}
				return report.PortsText(w, p, a.layout(s, c.output != "", -1))
			})
			if err == nil && p.Ephemeral == nil {
				err = errIncomplete
			}
			return err
		},
	}
	c.configFlag(cmd)
	c.outputFlag(cmd)
	c.snapshotFlag(cmd)
	setting(cmd, "format", "color", "ascii", "width")
	return cmd
}
