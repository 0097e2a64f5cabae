package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/report"
)

// diagnoseFlags are the flags of diagnose alone.
type diagnoseFlags struct {
	common
	message, server, from, iif, side, source, unit, log string
	public, resolvers                                   []string
	probe, metadata                                     bool
	pid                                                 int
	timeout                                             time.Duration
}

func (a *app) diagnose() *cobra.Command {
	var c diagnoseFlags
	cmd := &cobra.Command{
		Use:   "diagnose TARGET",
		Short: "Say why a client cannot use a service",
		Long: `diagnose says why a client cannot use TARGET: host:port, a port of this host,
or a URL (http, https, ws, wss, tcp, text, frame). It runs on the server (a host
that has the target's address), on the client, or on the client with the
server's snapshot (--server FILE, made by "hostaudit snapshot" there). Every
cause it knows is in every answer: confirmed, likely, ruled out, or not to be
told from here, with what would decide it.

On the server it reads the configuration of the web server (nginx, Apache,
HAProxy) that holds the port. On the client it looks the name up and connects.
With --error it takes the client's own message instead of connecting. Bytes of a
protocol are sent only with --probe, and the cloud's metadata service is asked
only with --metadata.`,
		Example: `  hostaudit diagnose ws://chat.example.com:2346
  sudo hostaudit diagnose 10.0.0.5:8080 --from 203.0.113.5
  hostaudit diagnose https://example.com/ --error "net::ERR_CONNECTION_TIMED_OUT"
  hostaudit diagnose tcp://10.0.0.5:3306 --server db.snapshot`,
		Args: oneTarget("host:port, or a URL"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.diagnoseOne(cmd, &c, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&c.message, "error", "", "the client's own error message `TEXT`, instead of connecting")
	f.BoolVar(&c.probe, "probe", false, "send the least of a protocol that tells what the listener speaks (a text:// service receives it), and echo requests of several sizes")
	f.StringVar(&c.server, "server", "", "the server's snapshot `FILE`")
	f.StringVar(&c.from, "from", "", "the client's `ADDRESS` as the server sees it")
	f.StringVar(&c.iif, "iif", "", "the server's `INTERFACE` the client's packets come in by")
	f.StringVar(&c.side, "side", "", "this host is the `server` or the client, where its addresses do not tell")
	f.StringVar(&c.source, "source", "", "the `ADDRESS` that the client's program binds before it connects")
	f.IntVar(&c.pid, "pid", 0, "the client's process, whose proxy settings count")
	f.StringVar(&c.unit, "unit", "", "the systemd `UNIT` of the service")
	f.StringVar(&c.log, "log", "", "the service's log `FILE`")
	f.StringSliceVar(&c.public, "public", nil, "public `ADDRESS` of the server that it does not have itself (NAT)")
	f.StringSliceVar(&c.resolvers, "resolver", nil, "ask this name server `ADDRESS[:PORT]` instead of those of resolv.conf")
	f.BoolVar(&c.metadata, "metadata", false, "ask the cloud's metadata service for the public address")
	f.DurationVar(&c.timeout, "timeout", 4*time.Second, "deadline of the connections")
	c.configFlag(cmd)
	c.outputFlag(cmd)
	c.rootFlag(cmd)
	c.snapshotFlag(cmd)
	setting(cmd, "format", "color", "ascii", "width", "quick", "sample")
	return cmd
}

func (a *app) diagnoseOne(cmd *cobra.Command, c *diagnoseFlags, target string) error {
	s, err := a.settings(cmd, &c.common, "text", "json")
	if err != nil {
		return err
	}
	o, err := diagnoseOptions(c, target)
	if err != nil {
		return &usageError{err, "see: hostaudit diagnose --help"}
	}
	o.Files.Root, o.Files.Environ, o.Config, o.Offline = s.Root, a.environ, &s.Audit, c.snapshot != ""
	o.Progress = func(step string) { a.warn("%s …", step) }
	if c.server != "" {
		if o.Server, err = a.loadSnapshot(c.server); err != nil {
			return err
		}
	}
	if !o.Offline {
		o.Progress("read this host")
	}
	o.Here, err = a.read(&c.common, s, collect.Options{Ask: valid(o.From, o.Target.Addr)})
	if err != nil {
		return err
	}
	o.Now = time.Now()
	if o.Offline {
		o.Now = o.Here.Meta.TakenAt
	}
	e := diagnose.Gather(a.ctx, o)
	e.Gaps = append(e.Gaps, missingParts(e)...)
	r := diagnose.Judge(e)
	err = a.emit(c.output, 0o644, func(w io.Writer) error {
		if s.Format == "json" {
			return report.JSON(w, r)
		}
		return report.DiagnoseText(w, r, a.layout(s, c.output != "", -1))
	})
	if err != nil {
		return err
	}
	if e.Side != diagnose.SideClient {
		return a.unread(e.Server)
	}
	return nil
}

func (a *app) loadSnapshot(file string) (*audit.Snapshot, error) {
	f, err := openPlain(file)
	if err != nil {
		return nil, usage(err)
	}
	defer f.Close()
	snap, err := collect.Load(f)
	if err != nil {
		return nil, usagef("%s: %w", file, err)
	}
	return snap, nil
}

// missingParts are the gaps of the server's snapshot that answers are built on.
func missingParts(e *diagnose.Evidence) []audit.Gap {
	var out []audit.Gap
	if e.Server == nil {
		return nil
	}
	for _, part := range []string{"firewall", "routes", "listeners", "programs"} {
		if why, ok := e.Server.World.Namespaces[0].Unread[part]; ok {
			out = append(out, audit.Gap{What: part, Why: why})
		}
	}
	return out
}

func diagnoseOptions(c *diagnoseFlags, target string) (diagnose.Options, error) {
	t, err := diagnose.ParseTarget(target)
	if err != nil {
		return diagnose.Options{}, err
	}
	o := diagnose.Options{Target: t, Message: c.message, Probe: c.probe, Metadata: c.metadata, Iif: c.iif, Limit: c.timeout, Side: diagnose.Side(c.side)}
	o.Files.PID, o.Files.Unit, o.Files.Log = c.pid, c.unit, c.log
	switch o.Side {
	case "", diagnose.SideServer, diagnose.SideClient:
	default:
		return o, fmt.Errorf("--side %q is neither server nor client", c.side)
	}
	switch {
	case c.server != "" && c.snapshot != "":
		return o, errors.New("--server goes with a live client, --snapshot without one")
	case c.snapshot != "" && (c.probe || c.metadata || len(c.resolvers) > 0 || c.pid > 0):
		return o, errors.New("--probe, --metadata, --resolver and --pid ask a live host: not with --snapshot")
	case c.server != "" && o.Side == diagnose.SideServer:
		return o, errors.New("--server is for the client's side")
	case c.server != "":
		o.Side = diagnose.SideClient
	case c.snapshot != "" && o.Side == "":
		o.Side = diagnose.SideServer
	}
	if c.timeout <= 0 || c.timeout > 5*time.Minute {
		return o, fmt.Errorf("--timeout %s is not between 0 and 5m", c.timeout)
	}
	if c.pid < 0 {
		return o, fmt.Errorf("--pid %d is no process", c.pid)
	}
	for _, x := range []struct {
		flag, text string
		to         *netip.Addr
	}{{"--from", c.from, &o.From}, {"--source", c.source, &o.Source}} {
		if x.text == "" {
			continue
		}
		addr, err := netip.ParseAddr(x.text)
		if err != nil {
			return o, fmt.Errorf("%s %q is no address", x.flag, x.text)
		}
		*x.to = addr.Unmap()
	}
	for _, p := range c.public {
		addr, err := netip.ParseAddr(p)
		if err != nil {
			return o, fmt.Errorf("--public %q is no address", p)
		}
		o.Public = append(o.Public, addr.Unmap())
	}
	for _, r := range c.resolvers {
		ap, err := netip.ParseAddrPort(r)
		if err != nil {
			addr, err := netip.ParseAddr(r)
			if err != nil {
				return o, fmt.Errorf("--resolver %q is no address", r)
			}
			ap = netip.AddrPortFrom(addr.Unmap(), 53)
		}
		o.Resolvers = append(o.Resolvers, ap)
	}
	return o, nil
}
