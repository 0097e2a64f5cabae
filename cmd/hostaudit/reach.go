package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/audit/report"
)

// reachFlags are the flags of reach alone.
type reachFlags struct {
	common
	from, proto, iif, batch string
	fromPort                uint16
	explain                 bool
}

func (a *app) reach() *cobra.Command {
	var c reachFlags
	cmd := &cobra.Command{
		Use:   "reach [TARGET]",
		Short: "Say who can reach a port, and what decides",
		Long: `reach says who can reach a port, and which rule, address, route or setting
decides. TARGET is a port, or an address and a port: 8080, :8080,
10.0.0.5:8080, [2001:db8::1]:443, 0.0.0.0:8080.

Without --from the answer covers all clients, by interface and address
family. With it, it is about that one client, and the exit code is 1 where
the client is not certain to get through.

--batch reads one JSON query a line and writes one JSON answer a line, in
the same order, all against one reading of the host. A line that is no query
is answered by an object with "error", and makes the exit code 2 at the end.`,
		Example: `  sudo hostaudit reach 8080
  sudo hostaudit reach 8080 --from 203.0.113.5 --explain
  echo '{"proto":"tcp","from":"10.9.0.1","to":"10.9.0.2","port":8080}' | sudo hostaudit reach --batch -`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case c.batch == "":
				return oneTarget("a port, or an address and a port")(cmd, args)
			case len(args) > 0:
				return errors.New("--batch takes its targets from its lines, not from the command line")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.batch != "" {
				return a.reachBatch(cmd, &c)
			}
			return a.reachOne(cmd, &c, args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.from, "from", "", "the client's `ADDRESS`")
	f.StringVar(&c.proto, "proto", "tcp", "transport protocol: tcp or udp")
	f.StringVar(&c.iif, "iif", "", "the `INTERFACE` the client's packets come in by; default: the one the route back to it names")
	f.Uint16Var(&c.fromPort, "from-port", 0, "the client's `PORT`; default: any unprivileged one")
	f.StringVar(&c.batch, "batch", "", "answer the queries of `FILE`, - for standard input")
	f.BoolVar(&c.explain, "explain", false, "show the whole way of the packet, rule by rule")
	c.configFlag(cmd)
	c.outputFlag(cmd)
	c.snapshotFlag(cmd)
	setting(cmd, "format", "color", "ascii", "width")
	return cmd
}

func (a *app) reachOne(cmd *cobra.Command, c *reachFlags, target string) error {
	s, err := a.settings(cmd, &c.common, "text", "json")
	if err != nil {
		return err
	}
	q, err := query(c, target)
	if err != nil {
		return &usageError{err, "see: hostaudit reach --help"}
	}
	snap, err := a.read(&c.common, s, collect.Options{Quick: true, NoCensus: true, Ask: valid(q.From)})
	if err != nil {
		return err
	}
	a.ownNamespace(snap)
	ev := reach.New(&snap.World)
	detail := reach.WithPath
	if c.explain {
		detail = reach.WithRules
	}
	ans, err := audit.Answer(ev, q, detail)
	if err != nil {
		return usage(err)
	}
	err = a.emit(c.output, 0o644, func(w io.Writer) error {
		if s.Format == "json" {
			return report.JSON(w, ans)
		}
		return report.ReachText(w, ans, a.layout(s, c.output != "", -1))
	})
	if err != nil {
		return err
	}
	if err := a.unread(snap); err != nil {
		return err
	}
	if q.From.IsValid() && !ans.Through() {
		return errFindings
	}
	return nil
}

// unread says which parts that answers of reach are built on are missing.
func (a *app) unread(snap *audit.Snapshot) error {
	home := snap.World.Namespaces[0]
	for _, part := range []string{"firewall", "routes", "listeners", "programs"} {
		if why, ok := home.Unread[part]; ok {
			a.warn("could not read %s: %s", part, why)
			return errIncomplete
		}
	}
	return nil
}

// ownNamespace says where the answers are about, where that is not the machine's
// first network namespace.
func (a *app) ownNamespace(snap *audit.Snapshot) {
	if !snap.Meta.NSUnknown && !snap.Meta.FirstNS {
		a.warn("the answer is about the network namespace this was started in, which is not the machine's first one")
	}
}

// query builds the question from the command line.
func query(c *reachFlags, target string) (reach.Query, error) {
	if c.proto != "tcp" && c.proto != "udp" {
		return reach.Query{}, fmt.Errorf("--proto %q is neither tcp nor udp", c.proto)
	}
	to, port, err := parseTarget(target)
	if err != nil {
		return reach.Query{}, err
	}
	if c.explain && c.from == "" {
		return reach.Query{}, errors.New("--explain follows the packets of one client: name it with --from")
	}
	if c.fromPort != 0 && c.from == "" {
		return reach.Query{}, errors.New("--from-port needs --from")
	}
	j := reach.QueryJSON{Proto: c.proto, From: c.from, FromPort: c.fromPort, Port: port, Iif: c.iif}
	if to.IsValid() {
		j.To = to.String()
	}
	return j.Query()
}

// parseTarget reads 8080, :8080, 10.0.0.5:8080, [2001:db8::1]:443.
func parseTarget(s string) (netip.Addr, uint16, error) {
	portText := strings.TrimPrefix(s, ":")
	var addr netip.Addr
	if i := strings.LastIndexByte(s, ':'); i > 0 {
		host := s[:i]
		bracketed := strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]")
		a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
		switch {
		case err != nil:
			return addr, 0, fmt.Errorf("target %q: %q is not an address (names are not looked up)", s, host)
		case a.Is6() && !bracketed:
			return addr, 0, fmt.Errorf("target %q: an IPv6 address stands in brackets, [%s]:PORT", s, a)
		case a.Is4() && bracketed:
			return addr, 0, fmt.Errorf("target %q: an IPv4 address stands without brackets", s)
		}
		addr, portText = a.Unmap(), s[i+1:]
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 || strings.HasPrefix(portText, "+") {
		return addr, 0, fmt.Errorf("target %q: %q is not a port from 1 to 65535", s, portText)
	}
	return addr, uint16(port), nil
}
