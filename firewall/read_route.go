package firewall

// readRealm reads the realm of the packet's route: nft_rt_get_eval and
// nft_meta_get_rtclassid, which break without a route, and realm_mt. IPv6 routes
// have none (nothing there sets dst.tclassid).
func (c *Class) readRealm(env *Env) reading {
	s := &c.State
	unknown := isUnknown(fieldWhy[FieldRealm])
	switch {
	case !s.Routed:
		return isAbsent()
	case s.Family == IPv6:
		return isConst(0)
	case env.FIB == nil:
		return unknown
	case !env.FIB.HasRealms():
		return isConst(0)
	case s.Reply || s.In == nil || s.Out != nil || s.LocalUnknown || s.TProxied ||
		s.RemoteAddrKind != RemoteSame || !s.RemoteAddr.IsZero():
		// What goes out has the realms of both ways (set_class_tag).
		return unknown
	}
	return reading{kind: readFIB, parts: fibParts(env.FIB.Realms(c.Remote, s.In, s.Local), func(v uint32) Value { return Num(uint64(v)) })}
}

// readNextHop is `rt nexthop` (nft_rt_get_eval: rt_nexthop, rt6_nexthop), which is
// the destination where the route has no gateway, such as that to a local socket.
func (c *Class) readNextHop() reading {
	s := &c.State
	switch {
	case !s.Routed:
		return isAbsent()
	case s.Reply || s.In == nil || s.Out != nil || s.RewroteHeader != "":
		return isUnknown(fieldWhy[FieldRTNextHop])
	}
	return c.localAddr()
}
