package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostaudit/hostaudit/audit/remedy"
	"github.com/hostaudit/hostaudit/audit/report"
)

func (a *app) history() *cobra.Command {
	var root, format string
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List what fix did",
		Long: `history lists the changes of 'hostaudit fix --apply', the latest first, and how
each ended. It changes nothing.

Exit codes: 0 listed, 3 entries could not be read, which are named.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if format != "text" && format != "json" {
				return usagef("--format %q: text or json", format)
			}
			sys, err := a.system(root, nil)
			if err != nil {
				return err
			}
			all, unread := sys.History()
			err = a.emit("", 0o644, func(w io.Writer) error {
				if format == "json" {
					if all == nil {
						all = []*remedy.Journal{}
					}
					return report.JSON(w, struct {
						Schema  string            `json:"schema"`
						Changes []*remedy.Journal `json:"changes"`
					}{"hostaudit/history/v1", all})
				}
				return cleanLines(w, historyText(all))
			})
			if err == nil {
				err = unread
			}
			return err
		},
	}
	rootOf(cmd, &root)
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

func historyText(all []*remedy.Journal) string {
	if len(all) == 0 {
		return "Nothing has been changed by fix.\n"
	}
	var b strings.Builder
	for _, j := range all {
		state := string(j.State)
		if j.State == remedy.Applied && j.Wait {
			state = "in place, to be confirmed until " + j.Deadline.Local().Format(time.TimeOnly)
		}
		fmt.Fprintf(&b, "%s  %s  %s", j.ID, j.Started.Local().Format(time.DateTime), state)
		if j.Why != "" {
			fmt.Fprintf(&b, ": %s", j.Why)
		}
		b.WriteString("\n")
		for _, c := range j.Changes {
			fmt.Fprintf(&b, "    %s  %s: %s\n", c.Finding, c.Subject, c.After)
		}
		for _, l := range j.Left {
			fmt.Fprintf(&b, "    left: %s\n", l)
		}
	}
	return b.String()
}
