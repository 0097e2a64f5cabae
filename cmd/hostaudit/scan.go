package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/checks"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/audit/report"
)

func (a *app) scan() *cobra.Command {
	var c common
	var k kept
	var noCensus bool
	cmd := &cobra.Command{
		Use:   "scan",
		Short: "Read the whole host and report",
		Long: `scan reads the whole host and prints the report: one line of verdict first
and last, who can connect to each port and what decides, what to do about
it, and what could not be read. It changes nothing, and works without root:
then it says what is missing.

Exit codes: 0 nothing at or above --fail-on, 1 findings, 2 the command line
or configuration is wrong, 3 the host could not be read completely (outranks
1).`,
		Example: `  sudo hostaudit scan
  sudo hostaudit scan --format json | jq '.findings[] | {id, subject, severity}'
  hostaudit scan --snapshot customer.snapshot`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			asBatch()
			s, err := a.settings(cmd, &c, report.Formats()...)
			if err != nil {
				return err
			}
			if err := k.check(s); err != nil {
				return err
			}
			before, err := k.before()
			if err != nil {
				return err
			}
			snap, err := a.read(&c, s, collect.Options{NoCensus: noCensus})
			if err != nil {
				return err
			}
			catalogue := checks.All()
			// The text does not show them, and they cost as much as one interface more.
			s.Audit.NoLocalRows = s.Format == "text" && before == nil && k.keep <= 0
			r := audit.Run(snap, &s.Audit, catalogue)
			end := outcome(r, s.FailOn)
			if err := k.store(r); err != nil {
				return err
			}
			if before != nil {
				d, err := compare(before, r)
				if err != nil {
					return err
				}
				if err := a.emitDiff(d, s, &c); err != nil && !errors.Is(err, errFindings) || r.Complete() {
					return err
				}
				return end // incomplete outranks findings
			}
			err = a.emit(c.output, 0o644, func(w io.Writer) error {
				layout := a.layout(s, c.output != "", exitCode(end))
				if s.Format == "html" {
					ev := reach.New(&snap.World)
					layout.Ask = func(q reach.Query) (reach.Answer, error) { return audit.Answer(ev, q, reach.WithPath) }
				}
				return report.Scan(w, s.Format, r, catalogue, layout)
			})
			if err != nil {
				return err
			}
			return end
		},
	}
	c.configFlag(cmd)
	c.outputFlag(cmd)
	c.rootFlag(cmd)
	c.snapshotFlag(cmd)
	k.flags(cmd)
	cmd.Flags().BoolVar(&noCensus, "no-census", false, "do not count the local ports in use, which walks every socket of the host")
	setting(cmd, "format", "fail-on", "color", "ascii", "width", "quick", "sample", "profile")
	return cmd
}

// outcome is what a report ends the program with.
func outcome(r *audit.Report, failOn audit.Severity) error {
	switch {
	case !r.Complete():
		return errIncomplete
	case r.Reaches(failOn):
		return errFindings
	}
	return nil
}
