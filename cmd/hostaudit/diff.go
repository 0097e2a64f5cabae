package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/report"
	"github.com/hostaudit/hostaudit/cmd/hostaudit/config"
)

// maxKept bounds a report that is read.
const maxKept = 256 << 20

func (a *app) diff() *cobra.Command {
	var c common
	var k kept
	cmd := &cobra.Command{
		Use:   "diff [BEFORE AFTER]",
		Short: "Say what changed between two reports",
		Long: `diff compares two reports that 'hostaudit scan --format json' wrote, without
files the last two that the daily scan kept: new and gone findings, new and
gone listeners, sources that get in now and did not before, other programs,
changed kernel settings and what a reboot makes of them.

Exit codes: 0 no new finding at or above --fail-on, 1 there is one, 2 the
command line is wrong or a file is no report.`,
		Example: `  sudo hostaudit diff
  hostaudit diff monday.json tuesday.json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return errors.New("two reports, or none for the last two that were kept")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.settings(cmd, &c, "text", "json")
			if err != nil {
				return err
			}
			if len(args) == 0 {
				if args, err = k.lastTwo(); err != nil {
					return err
				}
			}
			var two [2]*report.Kept
			for i, name := range args {
				if two[i], err = readKept(name); err != nil {
					return usage(err)
				}
			}
			return a.emitDiff(report.Compare(two[0], two[1]), s, &c)
		},
	}
	c.configFlag(cmd)
	c.outputFlag(cmd)
	k.dirFlag(cmd)
	setting(cmd, "format", "fail-on", "color", "ascii", "width")
	return cmd
}

func (a *app) emitDiff(d *report.Diff, s *config.Settings, c *common) error {
	var end error
	if d.Reaches(s.FailOn) {
		end = errFindings
	}
	err := a.emit(c.output, 0o644, func(w io.Writer) error {
		if s.Format == "json" {
			return report.JSON(w, d)
		}
		return report.DiffText(w, d, a.layout(s, c.output != "", exitCode(end)))
	})
	return errors.Join(err, end)
}

func readKept(name string) (*report.Kept, error) {
	f, err := openPlain(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKept+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > maxKept {
		return nil, fmt.Errorf("read %s: larger than 256 MiB", name)
	}
	k, err := report.ReadKept(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return k, nil
}

// kept are the reports that scan keeps.
type kept struct {
	dir, since string
	keep       int
}

var keptName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\d{8}T\d{6}\.\d{9}Z\.json$`) })

func (k *kept) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&k.since, "since", "", "say only what changed since the report `FILE`; last: since the last one kept")
	cmd.Flags().IntVar(&k.keep, "keep", 0, "keep this report as JSON, and the last `N` of them")
	k.dirFlag(cmd)
}

func (k *kept) dirFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&k.dir, "reports", "/var/lib/hostaudit/reports", "where reports are kept, `DIR`")
}

// lastTwo are the files of the last two reports that were kept.
func (k *kept) lastTwo() ([]string, error) {
	names, err := k.names()
	if err != nil {
		return nil, err
	}
	if len(names) < 2 {
		return nil, usagef("%d reports are kept in %s, and it takes two; scan --keep 30 keeps one", len(names), k.dir)
	}
	return []string{filepath.Join(k.dir, names[len(names)-2]), filepath.Join(k.dir, names[len(names)-1])}, nil
}

// check holds the flags to each other.
func (k *kept) check(s *config.Settings) error {
	switch {
	case k.keep < 0:
		return usagef("--keep %d: must not be negative", k.keep)
	case k.since != "" && s.Format != "text" && s.Format != "json":
		return usagef("--since is answered as text or json, not as %s", s.Format)
	}
	return nil
}

// before reads the report to compare with; nil where nothing is to be compared.
func (k *kept) before() (*report.Kept, error) {
	name := k.since
	switch name {
	case "":
		return nil, nil
	case "last":
		names, err := k.names()
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			return nil, usagef("no report is kept in %s; scan --keep 30 keeps one", k.dir)
		}
		name = filepath.Join(k.dir, names[len(names)-1])
	}
	b, err := readKept(name)
	return b, usage(err)
}

// names lists the reports that are kept, oldest first.
func (k *kept) names() ([]string, error) {
	entries, err := os.ReadDir(k.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, usage(err)
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && keptName().MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// store keeps a report, and lets the oldest go.
func (k *kept) store(r *audit.Report) error {
	if k.keep <= 0 {
		return nil
	}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return usage(err)
	}
	var b bytes.Buffer
	if err := report.JSON(&b, r); err != nil {
		return err
	}
	name := r.Host.TakenAt.UTC().Format("20060102T150405.000000000Z") + ".json"
	if err := writeWhole(filepath.Join(k.dir, name), 0o600, b.Bytes()); err != nil {
		return usage(err)
	}
	names, err := k.names()
	if err != nil {
		return err
	}
	for _, old := range names[:max(len(names)-k.keep, 0)] {
		if err := os.Remove(filepath.Join(k.dir, old)); err != nil {
			return usage(err)
		}
	}
	return nil
}

// compare is a report as it is compared with others.
func compare(before *report.Kept, r *audit.Report) (*report.Diff, error) {
	var b bytes.Buffer
	if err := report.JSON(&b, r); err != nil {
		return nil, err
	}
	after, err := report.ReadKept(b.Bytes())
	if err != nil {
		return nil, err
	}
	return report.Compare(before, after), nil
}
