package audit

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/audit/route"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
	"github.com/hostaudit/hostaudit/sysctl"
)

// facts gives the catalogue of sysctls what it looks at. What was not read
// stays out; the rules then say so.
func (s *Snapshot) facts(host *sysctl.Host, profile sysctl.Profile) *sysctl.Facts {
	f := &sysctl.Facts{Live: s.Sysctls, MemoryBytes: s.Memory, Profile: profile, Counters: s.counters()}
	if v, err := sysctl.ParseVersion(s.Meta.Kernel); err == nil {
		f.Kernel = v
	}
	if !s.Meta.NSUnknown {
		f.InitialNamespace = sysctl.Known(s.Meta.FirstNS)
	}
	if host != nil {
		f.Boot = host.Boot
	}
	roles := s.roles()
	if f.Boot != nil && f.Boot.Loader != sysctl.BootUnknown && f.Boot.Loader != sysctl.BootSystemd {
		// That systemd is installed as init does not say that it runs (a container).
		roles.SystemdRaisesFD = sysctl.No
	}
	if f.Boot != nil && f.Boot.Loader == sysctl.BootSystemd && f.Boot.Systemd > 0 {
		roles.SystemdRaisesFD = sysctl.Known(f.Boot.Systemd >= 240)
	}
	f.Roles = roles
	home := s.World.Namespaces[0]
	if home.Ruleset != nil {
		f.ToLoopback, f.ToElsewhere = rewrites(home)
	}
	if home.Listeners != nil {
		f.ListenersRead, f.ProcessesRead = true, true
		seen := map[int]bool{}
		for i := range home.Listeners.Listeners {
			l := &home.Listeners.Listeners[i]
			out := sysctlListener(l)
			if drops, ok := s.Dropped(l); ok {
				out.Drops = &drops
			}
			if out.Proto == string(listeners.TCP) {
				out.HalfOpen = s.halfOpen(l.Port())
			}
			f.Listeners = append(f.Listeners, out)
			for j := range l.Owners {
				if p := &l.Owners[j]; !seen[p.PID] {
					seen[p.PID] = true
					f.Processes = append(f.Processes, sysctlProcess(p))
				}
			}
		}
	}
	if c := s.Census; c != nil {
		f.CensusRead, f.LargeLost = true, s.largeLost()
		for i := range c.Destinations {
			d := &c.Destinations[i]
			out := sysctl.Destination{Proto: string(d.Proto), From: d.From.String(), To: d.To.String(), Port: d.Port, InUse: int(d.Held()), TimeWait: int(min(d.TimeWait, d.Held())),
				Usable: c.ForConnect(d.Proto)}
			if len(d.Owners) > 0 {
				out.Program = string(d.Owners[0].Process.Comm)
			}
			f.Destinations = append(f.Destinations, out)
		}
	}
	if ss := s.SockStat; ss != nil {
		f.Sockets = &sysctl.SocketTotals{TCPMemPages: int64(ss.TCPMemory), UDPMemPages: int64(ss.UDPMemory), Orphans: int64(ss.TCPOrphan),
			TimeWait: int64(ss.TCPTimeWait), FinWait2: -1}
		if s.Census != nil {
			f.Sockets.FinWait2 = int64(s.Census.States["fin-wait-2"])
		}
	}
	if c := s.Conntrack; c != nil {
		f.Conntrack = &sysctl.ConntrackState{Hooked: tracked(home.Ruleset), Count: int64(c.Count)}
	}
	if n := s.Sysctls.Ints("fs.file-nr"); len(n) == 3 {
		f.Files = &sysctl.FileTable{Open: uint64(n[0]), Max: uint64(n[2])}
	}
	return f
}

// largeLost are the connections on which the other side acknowledges a later,
// shorter segment and never the full one before it: large packets vanish on the
// way. A client that is gone acknowledges neither.
func (s *Snapshot) largeLost() (out []sysctl.Evidence) {
	for i := range s.Census.Stalled {
		c := &s.Census.Stalled[i]
		x := c.Info
		// The timer repeats the first segment each time; the probe for a lost tail,
		// which goes before, repeats the last.
		full := x.SendMSS > 0 && x.BytesRetransmitted >= uint64(x.Retransmits)*uint64(x.SendMSS)
		shorter := x.BytesSent-x.BytesRetransmitted-x.BytesAcked < uint64(x.Unacked)*uint64(x.SendMSS)
		if c.Stuck() && full && shorter && x.Sacked > 0 && x.Sacked < x.Unacked && len(out) < 3 {
			out = append(out, sysctl.Evidence{Source: fmt.Sprintf("connection %s → %s", c.Local, c.Remote),
				Value: fmt.Sprintf("a segment of %d bytes was repeated %d times in vain, while a shorter one after it arrived", c.Info.SendMSS, c.Info.Retransmits)})
		}
	}
	return out
}

// Dropped is what a listener of the audited namespace threw away while counters
// were watched: connection attempts, or datagrams. ok is false where that was not
// measured or the kernel does not tell.
func (s *Snapshot) Dropped(l *listeners.Listener) (c sysctl.Counter, ok bool) {
	if len(s.Samples) < 2 {
		return c, false
	}
	first, last := s.Samples[0], s.Samples[len(s.Samples)-1]
	before, ok1 := first.Drops[l.Cookie]
	after, ok2 := last.Drops[l.Cookie]
	if !ok1 || !ok2 || l.Cookie == 0 {
		return c, false
	}
	return sysctl.Counter{Total: uint64(after), Delta: uint64(after - before), Window: s.window(), Sampled: true}, true
}

// window is how long counters were watched, in seconds.
func (s *Snapshot) window() float64 {
	return math.Round(s.Samples[len(s.Samples)-1].At.Sub(s.Samples[0].At).Seconds()*100) / 100
}

// counters takes the last sample, and the growth since the first.
func (s *Snapshot) counters() sysctl.Counters {
	out := sysctl.Counters{}
	if len(s.Samples) == 0 {
		return out
	}
	first, last := s.Samples[0], s.Samples[len(s.Samples)-1]
	growth := last.Counters.Sub(first.Counters)
	window := s.window()
	for name, total := range last.Counters {
		c := sysctl.Counter{Total: total}
		if len(s.Samples) > 1 {
			c.Delta, c.Sampled = growth[name]
			c.Window = window
		}
		// /proc/net/snmp6 has one word a counter: Udp6RcvbufErrors.
		for _, group := range []string{"Udp6", "UdpLite6", "Ip6", "Icmp6"} {
			if rest, ok := strings.CutPrefix(name, group); ok && !strings.Contains(name, ".") {
				name = group + "." + rest
				break
			}
		}
		out[name] = c
	}
	return out
}

// halfOpen counts the handshakes of a port that wait for the client's last segment.
func (s *Snapshot) halfOpen(port uint16) int {
	if s.Census != nil {
		for i := range s.Census.Inbound {
			if in := &s.Census.Inbound[i]; in.Port == port {
				return int(in.HalfOpen)
			}
		}
	}
	return 0
}

func sysctlListener(l *listeners.Listener) sysctl.Listener {
	out := sysctl.Listener{
		Proto: string(l.Proto), Address: l.Local.Addr().String(), Port: l.Port(), Subject: l.Subject(), V6: l.Local.Addr().Is6() && !l.Local.Addr().Is4In6(),
		// A wildcard or low UDP port is chosen; one bound by connect(2) or bind(0)
		// lies in the ephemeral range and cannot be told from it.
		Configured: !l.Proto.Datagram(),
	}
	if l.Proto == listeners.MPTCP {
		out.Proto = string(listeners.TCP)
	}
	if l.Tells(listeners.FactLimit) { // a length says nothing without it
		out.Queued, out.Limit = int(l.Accept.Len), int(l.Accept.Limit)
	}
	if len(l.Owners) > 0 {
		out.Program = string(l.Owners[0].Comm)
	}
	return out
}

func sysctlProcess(p *listeners.Process) sysctl.Process {
	out := sysctl.Process{PID: p.PID, Name: string(p.Comm), Unit: string(p.Unit), OpenFiles: p.Files.Open, SoftLimit: limit(p.Files.Soft), HardLimit: limit(p.Files.Hard), SelectOn: p.SelectOn}
	if u := p.UnitFiles; u != nil {
		out.UnitLimit, out.UnitLimitAt = limit(u.Limit), fmt.Sprintf("%s:%d", u.File, u.Line)
	}
	if p.SelectOn > 0 {
		out.SelectLoop = sysctl.Yes
	}
	return out
}

func limit(n int64) uint64 {
	if n < 0 {
		return math.MaxUint64
	}
	return uint64(n)
}

// roles are what the host is for, as far as the reading tells.
func (s *Snapshot) roles() sysctl.Roles {
	var r sysctl.Roles
	home := s.World.Namespaces[0]
	for _, ns := range s.World.Namespaces[1:] {
		if ns.Listeners == nil {
			continue
		}
		for i := range ns.Listeners.Listeners {
			if slices.ContainsFunc(ns.Listeners.Listeners[i].Owners, func(p listeners.Process) bool { return p.Container != nil }) {
				r.ContainerHost = sysctl.Yes
			}
		}
	}
	if s.Census != nil {
		r.PathMTULost = sysctl.Known(len(s.largeLost()) > 0)
	}
	if t := home.Route; t != nil {
		r.PolicyRouting, r.RARoute = routesByPolicy(t), fromAdvertisement(t)
	}
	if home.Ruleset != nil {
		loopback, elsewhere := rewrites(home)
		r.DNATToLoopback, r.DNATElsewhere = sysctl.Known(len(loopback) > 0), sysctl.Known(len(elsewhere) > 0)
		if home.Route == nil && r.DNATElsewhere == sysctl.Yes {
			r.DNATElsewhere = sysctl.Unsure // it may be this host's own address
		}
		for _, t := range home.Ruleset.Tables {
			if slices.ContainsFunc(t.Chains, func(ch *firewall.Chain) bool { return ch.Unread != "" }) {
				r.DNATToLoopback, r.DNATElsewhere = sysctl.Unsure, sysctl.Unsure
			}
		}
	}
	if home.Listeners != nil {
		r.VRRP = sysctl.No
		for i := range home.Listeners.Listeners {
			l := &home.Listeners.Listeners[i]
			if l.Proto == listeners.Raw && l.Port() == 112 { // VRRP is IP protocol 112
				r.VRRP = sysctl.Yes
			}
			a := l.Local.Addr()
			if !a.Is6() || a.Is4In6() || a.IsLoopback() || a.IsLinkLocalUnicast() {
				continue
			}
			// [::] that takes IPv4 as well is what most programs bind by default.
			if !a.IsUnspecified() || l.Tells(listeners.FactV6Only) && l.V6Only {
				r.IPv6Wanted = sysctl.Yes
			}
		}
	}
	return r
}

// The preferences of the three rules that every namespace has (fib_default_rules_init).
const prefMain, prefDefault = 32766, 32767

// routesByPolicy says whether packets leave by other rules than the destination
// alone: a rule of somebody's own that leads elsewhere, or default routes by
// several links. IPv4 only, as rp_filter is.
func routesByPolicy(t *route.Table) sysctl.Fact {
	for _, r := range t.Rules4 {
		if r.Pref != 0 && r.Pref != prefMain && r.Pref != prefDefault && !r.L3mdev && r.Table != tableLocal {
			return sysctl.Yes
		}
	}
	links := map[*route.Link]bool{}
	for _, r := range t.Routes {
		if r.Family == firewall.IPv4 && r.Dst.Bits() == 0 && r.Table == tableMain {
			for _, h := range r.Hops {
				links[h.Link] = true
			}
		}
	}
	return sysctl.Known(len(links) > 1)
}

// rtnetlink(7): RT_TABLE_MAIN and RT_TABLE_LOCAL; RTPROT_RA of linux/rtnetlink.h.
const tableMain, tableLocal, protocolRA = 254, 255, 9

// fromAdvertisement says whether an IPv6 default route came from a router
// advertisement.
func fromAdvertisement(t *route.Table) sysctl.Fact {
	for _, r := range t.Routes {
		if r.Family == firewall.IPv6 && r.Dst.Bits() == 0 && r.Protocol == protocolRA && !r.Expired {
			return sysctl.Yes
		}
	}
	return sysctl.No
}

// rewrites names the rules that rewrite destinations, to this host's loopback or
// to other hosts and namespaces. One to another address of this host's is neither.
func rewrites(home *reach.Namespace) (loopback, elsewhere []sysctl.Evidence) {
	own := map[netip.Addr]bool{}
	if home.Route != nil {
		for _, a := range home.Route.Addrs {
			own[a.Local] = true
		}
	}
	for _, t := range home.Ruleset.Tables {
		for _, ch := range t.Chains {
			for _, r := range ch.Rules {
				for _, st := range r.Stmts {
					nat, ok := st.(*firewall.NAT)
					if !ok || nat.Kind != firewall.DNAT || t.Dormant || nat.AddrMin == nil {
						continue
					}
					seen := sysctl.Evidence{Source: fmt.Sprintf("%s %s %s %s #%d", t.Backend, t.Family, t.Name, ch.Name, r.Number), Value: r.Text()}
					if c, ok := nat.AddrMin.(firewall.Const); ok {
						f := nat.Family
						if f == 0 {
							f = firewall.IPv4
							if firewall.MaxValue(4).Less(c.Value) {
								f = firewall.IPv6
							}
						}
						a := c.Value.Addr(f)
						if own[a] && !a.IsLoopback() {
							continue
						}
						if a.IsLoopback() {
							loopback = append(loopback, seen)
							continue
						}
					}
					elsewhere = append(elsewhere, seen)
				}
			}
		}
	}
	return loopback, elsewhere
}

// tracked says whether a rule needs connection tracking, which is what hooks it.
func tracked(rs *firewall.Ruleset) sysctl.Fact {
	if rs == nil {
		return sysctl.Unsure
	}
	for _, t := range rs.Tables {
		for _, ch := range t.Chains {
			if ch.Base != nil && ch.Base.Type == firewall.ChainNAT {
				return sysctl.Yes
			}
			for _, r := range ch.Rules {
				for _, st := range r.Stmts {
					if m, ok := st.(*firewall.Match); ok && m.Operand.Field.Kind >= firewall.FieldCTState && m.Operand.Field.Kind <= firewall.FieldCTSecMark {
						return sysctl.Yes
					}
				}
			}
		}
	}
	return sysctl.No
}
