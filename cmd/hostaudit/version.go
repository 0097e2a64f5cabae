package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/hostaudit/hostaudit/audit/report"
)

// release is set by the linker for packages.
var release string

// version is the version of this program: the release, else what the go command
// knows of the source it was built from.
func version() string {
	if release != "" {
		return release
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "(devel)"
}

func (a *app) version() *cobra.Command {
	var c common
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.settings(cmd, &c, "text", "json")
			if err != nil {
				return err
			}
			return a.emit("", 0, func(w io.Writer) error {
				if s.Format == "json" {
					return report.JSON(w, map[string]string{"version": version(), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
				}
				_, err := fmt.Fprintf(w, "hostaudit %s (%s, %s/%s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
				return err
			})
		},
	}
	c.configFlag(cmd)
	setting(cmd, "format")
	return cmd
}
