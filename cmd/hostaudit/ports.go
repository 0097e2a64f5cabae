package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/report"
	"github.com/hostaudit/hostaudit/cmd/hostaudit/config"
)

// portsFlags are those of ports.
type portsFlags struct {
	common
	watch    bool
	interval time.Duration
	span     time.Duration
}

func (a *app) ports() *cobra.Command {
	var c portsFlags
	cmd := &cobra.Command{
		Use:   "ports",
		Short: "Show how the local ports of outgoing connections are used",
		Long: `ports shows how much of the ephemeral port space each destination uses, who
uses it, and what to do where it runs short. Connections to different
destinations share local ports, those to one address and port cannot: when
they are used up, connect() fails with "Cannot assign requested address".
From half of them on every connect() takes about ten times as long.

--watch counts again and again: a terminal is redrawn, anything else gets one
report after the other (with --format json one line each), until Ctrl-C.`,
		Example: `  sudo hostaudit ports
  sudo hostaudit ports --watch --interval 5s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			asBatch()
			if err := c.check(cmd); err != nil {
				return &usageError{err, "see: hostaudit ports --help"}
			}
			s, err := a.settings(cmd, &c.common, "text", "json")
			if err != nil {
				return err
			}
			if c.watch {
				return a.watchPorts(s, &c)
			}
			p, err := a.readPorts(a.ctx, &c, s)
			if err != nil {
				return err
			}
			err = a.emit(c.output, 0o644, func(w io.Writer) error {
				if s.Format == "json" {
					return report.JSON(w, p)
				}
				return report.PortsText(w, p, a.layout(s, c.output != "", -1))
			})
			if err == nil && !p.Complete() {
				err = errIncomplete
			}
			return err
		},
	}
	c.configFlag(cmd)
	c.outputFlag(cmd)
	c.snapshotFlag(cmd)
	cmd.Flags().BoolVar(&c.watch, "watch", false, "count again and again and redraw, until Ctrl-C")
	cmd.Flags().DurationVar(&c.interval, "interval", 2*time.Second, "with --watch: `TIME` from one count to the next")
	cmd.Flags().DurationVar(&c.span, "for", 0, "with --watch: end after this `TIME`")
	setting(cmd, "format", "color", "ascii", "width")
	return cmd
}

// check holds the flags to each other.
func (c *portsFlags) check(cmd *cobra.Command) error {
	switch {
	case c.watch && c.snapshot != "":
		return errors.New("--watch does not go with --snapshot: a snapshot does not move")
	case c.watch && c.output != "":
		return errors.New("--watch does not go with --output: it has no end that a file could wait for")
	case !c.watch && (cmd.Flags().Changed("interval") || cmd.Flags().Changed("for")):
		return errors.New("--interval and --for go with --watch")
	case c.interval < 100*time.Millisecond:
		return fmt.Errorf("--interval %s is shorter than 100ms", c.interval)
	case c.span < 0:
		return fmt.Errorf("--for %s is negative", c.span)
	}
	return nil
}

func (a *app) readPorts(ctx context.Context, c *portsFlags, s *config.Settings) (*audit.PortUse, error) {
	var snap *audit.Snapshot
	var err error
	if c.snapshot != "" {
		snap, err = a.read(&c.common, s, collect.Options{})
	} else if snap, err = collect.Ports(ctx, a.options(s, collect.Options{Quick: true})); err != nil {
		err = fmt.Errorf("read the host: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if !c.watch {
		a.ownNamespace(snap)
	}
	return audit.Ports(snap), nil
}

// watchPorts counts until it is told to end. Each drawing is one write, so that
// a terminal never shows half of one.
func (a *app) watchPorts(s *config.Settings, c *portsFlags) error {
	ctx := a.ctx
	if c.span > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, c.span)
		defer stop()
	}
	rows := 0
	f, isFile := a.stdout.(*os.File)
	terminal := isFile && term.IsTerminal(int(f.Fd())) && s.Format == "text"
	tick := time.NewTicker(c.interval)
	defer tick.Stop()
	incomplete := false
	for {
		p, err := a.readPorts(ctx, c, s)
		if ctx.Err() != nil {
			break // asked to end, not failed
		}
		if err != nil {
			return err
		}
		incomplete = p.Ephemeral == nil
		if terminal {
			if _, h, err := term.GetSize(int(f.Fd())); err == nil {
				rows = h
			}
		}
		var b bytes.Buffer
		if s.Format == "json" {
			err = json.NewEncoder(&b).Encode(p)
		} else {
			err = report.PortsFrame(&b, p, report.Frame{Every: c.interval, Rows: rows, Redraw: terminal}, a.layout(s, false, -1))
		}
		if err == nil {
			_, err = a.stdout.Write(b.Bytes())
		}
		if errors.Is(err, unix.EPIPE) {
			return nil // nobody reads any longer
		}
		if err != nil {
			return fmt.Errorf("write report: %w", err)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		if ctx.Err() != nil {
			break
		}
	}
	if incomplete {
		return errIncomplete
	}
	return nil
}
