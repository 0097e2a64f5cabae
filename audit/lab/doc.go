// Package lab is the laboratory of the tests: hosts made of network namespaces
// joined by veth, real listeners, real clients, and rulesets loaded by the real
// tools, so that the kernel itself is the judge of what the project claims.
//
// It knows nothing of the project and only tests import it. A test binary that
// uses it enters its own namespaces first, root or not:
//
//	func TestMain(m *testing.M) { lab.Main(m) }
//
//	func TestDrop(t *testing.T) {
//		lab.Need(t, "nft")
//		l := lab.New(t, lab.Topology{})
//		l.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: netip.MustParseAddrPort("0.0.0.0:8080")})
//		probe := lab.Probe{Proto: lab.TCP, From: l.ClientAddr(0), To: netip.AddrPortFrom(l.ServerAddr(0), 8080)}
//		l.Control(t, probe) // without rules it connects
//		l.Server.Load(t, lab.NFT, "table inet f { chain i { type filter hook input priority 0; policy drop; }; }")
//		if got := l.Probe(t, probe)[0]; got.ClientSees != lab.Timeout { … }
//	}
//
// Nothing here touches the machine's own firewall, routes, sysctls or files: the
// process refuses to run its experiments when it cannot prove that it is in
// another network namespace than the one it was started in, /run is a tmpfs of
// its own, and /etc and every sysctl outside net.* are mounted read-only.
//
// The network of New, where i counts links from 0:
//
//	client  c0   10.9.i.1/24 fd00:9:i::1/64 ── 10.9.i.2/24 fd00:9:i::2/64  eth0  server
//	server  ctr0 10.88.k.1/24 fd00:88:k::1/64 ── 10.88.k.2/24 fd00:88:k::2/64 eth0 container k
//
// The client owns every address there is: a probe may come from any source, and
// may go to any destination over any link (see Probe.Via).
package lab
