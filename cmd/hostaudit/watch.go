package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/report"
	"github.com/hostaudit/hostaudit/cmd/hostaudit/config"
)

// watchFlags are the flags of watch alone.
type watchFlags struct {
	common
	span        time.Duration
	from, proto string
}

func (a *app) watch() *cobra.Command {
	var c watchFlags
	cmd := &cobra.Command{
		Use:   "watch TARGET",
		Short: "Watch attempts to connect arrive, and say where each one ended",
		Long: `watch watches real attempts to connect to a port arrive, or not, and says where
each one ended: before this host, at a rule, at a closed port, at a full queue,
on the way back, or with the process that served it. Have the client try while
it runs. TARGET is a port, or an address and a port: 8080, :8080,
10.0.0.5:8080, [2001:db8::1]:443.

It compares the packets (SYN in; SYN-ACK, RST or ICMP error out) with the
kernel's counters, with the deciding rule's own counter, and with what the rules,
routes and sockets say about that very client; where they disagree it says so. An
attempt without an answer is told after 3.3 seconds, the others at once. It
changes nothing: no rule, no setting, no promiscuous mode. What an XDP program
drops it cannot see.

--format ndjson writes a line the moment it is known, json one object at the end.

Exit codes: 0 it watched, whatever it saw (the report says what); 2 the command
line is wrong; 3 it could not watch (it takes CAP_NET_RAW), packets were lost,
or the host could not be read completely.`,
		Example: `  sudo hostaudit watch 8080
  sudo hostaudit watch 10.0.0.5:443 --from 203.0.113.5 --for 2m
  sudo hostaudit watch 53 --proto udp --format ndjson`,
		Args: oneTarget("a port, or an address and a port"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.watchOne(cmd, &c, args[0]) },
	}
	f := cmd.Flags()
	f.DurationVar(&c.span, "for", 30*time.Second, "how long to watch")
	f.StringVar(&c.from, "from", "", "only attempts of the client with this `ADDRESS`")
	f.StringVar(&c.proto, "proto", "tcp", "transport protocol: tcp or udp")
	c.configFlag(cmd)
	c.outputFlag(cmd)
	c.rootFlag(cmd)
	c.snapshotFlag(cmd)
	_ = f.MarkHidden("snapshot") // it is refused, with words
	setting(cmd, "format", "color", "ascii", "width")
	return cmd
}

// maxWatch bounds --for.
const maxWatch = 24 * time.Hour

// options checks the command line.
func (c *watchFlags) options(target string) (o diagnose.WatchOptions, err error) {
	switch {
	case c.snapshot != "":
		return o, errors.New("watch watches packets arrive, and a snapshot has none: leave --snapshot out")
	case c.span <= 0 || c.span > maxWatch:
		return o, fmt.Errorf("--for %s: must be above 0s and at most 24h", c.span)
	}
	switch c.proto {
	case "tcp":
		o.Proto = unix.IPPROTO_TCP
	case "udp":
		o.Proto = unix.IPPROTO_UDP
	default:
		return o, fmt.Errorf("--proto %q is neither tcp nor udp", c.proto)
	}
	if o.To, o.Port, err = parseTarget(target); err != nil {
		return o, err
	}
	if o.To.IsValid() && o.To.IsUnspecified() {
		o.To = netip.Addr{} // 0.0.0.0:8080 is every address
	}
	if c.from != "" {
		if o.From, err = netip.ParseAddr(c.from); err != nil {
			return o, fmt.Errorf("--from: %w", err)
		}
		o.From = o.From.Unmap()
		if o.To.IsValid() && o.To.Is4() != o.From.Is4() {
			return o, fmt.Errorf("--from %s and target %s are of different address families", o.From, o.To)
		}
	}
	// Packets have no zone.
	o.To, o.From, o.For = o.To.WithZone(""), o.From.WithZone(""), c.span
	return o, nil
}

func (a *app) watchOne(cmd *cobra.Command, c *watchFlags, target string) error {
	o, err := c.options(target)
	if err != nil {
		return &usageError{err, "see: hostaudit watch --help"}
	}
	s, err := a.settings(cmd, &c.common, "text", "json", "ndjson")
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(a.ctx)
	defer stop()
	first := true
	o.Read = func(ctx context.Context, ask []netip.Addr) (*audit.Snapshot, error) {
		snap, err := collect.Host(ctx, a.options(s, collect.Options{Quick: true, NoCensus: true, Ask: ask}))
		if err == nil && first {
			first = false
			a.ownNamespace(snap)
		}
		return snap, err
	}
	o.Facts = diagnose.ReadHost(ctx, diagnose.HostOptions{Root: c.root, Environ: a.environ})
	out := a.watchOutput(s, c, stop)
	o.Began = func(r *diagnose.WatchReport) { out.began(r, c.span) }
	o.Each = out.each
	r, err := diagnose.Watch(ctx, o)
	if err != nil {
		return fmt.Errorf("watch %s: %w", target, err)
	}
	if err := out.end(a, c, r); err != nil {
		return err
	}
	if len(r.Incomplete) > 0 {
		return errIncomplete
	}
	return nil
}

// watchOutput writes a watch as it goes on: to stdout at once, or whole to a file.
type watchOutput struct {
	format string
	layout report.Options
	w      io.Writer
	whole  *bytes.Buffer // for --output
	stop   func()        // nobody reads any longer
	err    error
}

func (a *app) watchOutput(s *config.Settings, c *watchFlags, stop func()) *watchOutput {
	o := &watchOutput{format: s.Format, layout: a.layout(s, c.output != "", -1), w: a.stdout, stop: stop}
	if c.output != "" {
		o.whole = &bytes.Buffer{}
		o.w = o.whole
	}
	return o
}

// write puts one piece out in one write.
func (o *watchOutput) write(render func(io.Writer) error) {
	if o.err != nil {
		return
	}
	var b bytes.Buffer
	if o.err = render(&b); o.err == nil {
		_, o.err = o.w.Write(b.Bytes())
	}
	if o.err != nil {
		o.stop()
	}
}

func (o *watchOutput) began(r *diagnose.WatchReport, span time.Duration) {
	switch o.format {
	case "text":
		o.write(func(w io.Writer) error { return report.WatchHead(w, r, span, o.layout) })
	case "ndjson":
		o.write(func(w io.Writer) error { return report.WatchNDJSON(w, "watch", r, nil) })
	}
}

func (o *watchOutput) each(g *diagnose.Sighting) {
	switch o.format {
	case "text":
		o.write(func(w io.Writer) error { return report.WatchLine(w, g, o.layout) })
	case "ndjson":
		o.write(func(w io.Writer) error { return report.WatchNDJSON(w, "attempt", nil, g) })
	}
}

// end writes the sum. A reader that went away is no error.
func (o *watchOutput) end(a *app, c *watchFlags, r *diagnose.WatchReport) error {
	o.write(func(w io.Writer) error {
		switch o.format {
		case "json":
			return report.JSON(w, r)
		case "ndjson":
			return report.WatchNDJSON(w, "summary", r, nil)
		}
		return report.WatchEnd(w, r, o.layout)
	})
	if o.err != nil && !errors.Is(o.err, unix.EPIPE) {
		return fmt.Errorf("write report: %w", o.err)
	}
	if o.whole != nil && o.err == nil {
		return a.emit(c.output, 0o644, func(w io.Writer) error {
			_, err := w.Write(o.whole.Bytes())
			return err
		})
	}
	return nil
}
