package firewall

// translateAt runs the NAT core of a hook (nf_nat_inet_fn): the nat chains are
// asked for the first packet of a flow only, in the order of their priorities
// among themselves but always at the NAT core's own place; the first mapping
// wins, and accept in one chain does not stop the next.
func (w *walker) translateAt(chains []*Chain, c Class, src bool) []Class {
	st := &c.State
	if !st.tracked() {
		return []Class{c}
	}
	done := &st.DstNATInit
	if src {
		done = &st.SrcNATInit
	}
	if st.Reply && st.CTState != CTNew {
		st.untranslate(src)
		return []Class{c}
	}
	if *done {
		st.translateAs(st.flow, src)
		return []Class{c}
	}
	cur := []Class{c}
	n := walker{env: w.env, hook: w.hook, nat: true}
	for _, ch := range chains {
		if len(cur) == 0 {
			break
		}
		cur = n.base(ch, cur)
	}
	w.ends = append(w.ends, n.ends...)
	out := append(n.mapped, cur...)
	for i := range out {
		// Also where nothing is translated (nf_nat_alloc_null_binding).
		if src {
			out[i].State.SrcNATInit = true
			out[i].State.CTStatus |= CTStatusSrcNATDone
		} else {
			out[i].State.DstNATInit = true
			out[i].State.CTStatus |= CTStatusDstNATDone
		}
	}
	return merge(out)
}

// untranslate undoes on a reply what the flow's first packet got: the
// destination manipulation of a reply undoes the source translation and the
// other way round (nf_nat_packet: statusbit ^= IPS_NAT_MASK).
func (s *State) untranslate(src bool) {
	if src {
		s.Local, s.LocalPort = s.OrigLocal, s.OrigLocalPort
		s.LocalUnknown, s.LocalPortUnknown = false, false
		return
	}
	s.RemoteAddrKind, s.RemoteAddr = s.BaseAddrKind, s.BaseAddr
	s.RemotePortKind, s.RemotePort = s.BasePortKind, s.BasePort
}

// translateAs gives a later packet of a flow the translation that its first one
// got (nf_nat_packet); nil: none.
func (s *State) translateAs(first *State, src bool) {
	switch {
	case first == nil || s.Reply:
	case src:
		s.RemoteAddrKind, s.RemoteAddr = first.RemoteAddrKind, first.RemoteAddr
		s.RemotePortKind, s.RemotePort = first.RemotePortKind, first.RemotePort
	default:
		s.Local, s.LocalPort = first.Local, first.LocalPort
		s.LocalUnknown, s.LocalPortUnknown = first.LocalUnknown, first.LocalPortUnknown
	}
}

// translate carries out a NAT statement on the first packet of a flow.
func (x *ruleWalk) translate(c Class, n *NAT) {
	if !x.nat {
		x.opaqueEnd(c, "a translation outside of a nat chain")
		return
	}
	if c.State.Reply {
		x.opaqueEnd(c, "the answer to an untracked packet is translated as a flow of its own")
		return
	}
	if n.Family != 0 && n.Family != c.State.Family {
		x.skip(c, No, "the other address family")
		return
	}
	type choice struct {
		Class
		addr, addrMax, port, portMax *Value
		unknown                      string
	}
	cur := []choice{{Class: c}}
	for i, src := range []Source{n.AddrMin, n.AddrMax, n.PortMin, n.PortMax} {
		if src == nil {
			continue
		}
		var next []choice
		for _, ch := range cur {
			for _, v := range x.evaluate(ch.Class, src) {
				d := ch
				d.Class = v.Class
				val := v.value
				*[]**Value{&d.addr, &d.addrMax, &d.port, &d.portMax}[i] = &val
				if v.unknown != "" {
					d.unknown = v.unknown
				}
				next = append(next, d)
			}
		}
		cur = next
	}
	for _, ch := range cur {
		if ch.addrMax == nil {
			ch.addrMax = ch.addr
		}
		if ch.portMax == nil {
			ch.portMax = ch.port
		}
		if ch.unknown != "" {
			x.opaqueEnd(ch.Class, ch.unknown)
			continue
		}
		x.mapTo(ch.Class, n, ch.addr, ch.addrMax, ch.port, ch.portMax)
	}
}

// mapTo translates to an address and port range; nil: unchanged.
func (x *ruleWalk) mapTo(c Class, n *NAT, addr, addrMax, port, portMax *Value) {
	switch n.Kind {
	case Redirect:
		if x.env.FIB == nil {
			x.opaqueEnd(c, "the routing of the host")
			return
		}
		a, ok := x.env.FIB.RedirectAddr(c.State.Family, c.State.In, c.State.Local)
		if !ok {
			// nf_nat_redirect: no usable address on the interface, NF_DROP.
			x.end(c, FateDrop, x.rule.Chain, x.rule, nil, "the interface has no address to redirect to")
			return
		}
		addr, addrMax = &a, &a
		x.destination(c, n, addr, addrMax, port, portMax)
	case DNAT:
		x.destination(c, n, addr, addrMax, port, portMax)
	case Masquerade:
		x.masquerade(c, n, port, portMax)
	default:
		x.source(c, n, addr, addrMax, port, portMax)
	}
}

// masquerade follows each address that nf_nat_masquerade_ipv4 and
// nf_nat_masquerade_ipv6 may take.
func (x *ruleWalk) masquerade(c Class, n *NAT, port, portMax *Value) {
	var as []Value
	if x.env.FIB != nil && !c.State.LocalUnknown {
		as = x.env.FIB.MasqueradeAddrs(c.State.Family, c.State.Out, c.State.Local)
	}
	if len(as) == 0 {
		c.State.CTStatus |= CTStatusSrcNAT
		c.State.RemoteAddrKind, c.State.RemoteAddr = RemoteUnknown, Value{}
		x.sourcePort(c, n, port, portMax)
		return
	}
	for i, way := range x.ways(c, len(as), "which of the host's addresses masquerading takes") {
		x.source(way, n, &as[i], &as[i], port, portMax)
	}
}

func (x *ruleWalk) settle(c Class) {
	x.note(&c, x.rule.Chain, x.rule, Yes, Accept, "translated")
	x.mapped = append(x.mapped, c)
}

// tproxy is nft_tproxy_eval and tproxy_tg: it takes effect only where a socket
// listens at the address it names.
func (x *ruleWalk) tproxy(c Class, t *TProxy) []alive {
	st := &c.State
	port := Num(uint64(st.LocalPort))
	cur := []valued{{Class: c}}
	if t.Addr != nil {
		cur = x.evaluate(c, t.Addr)
	}
	var out []alive
	for _, v := range cur {
		a := v.value
		if a.IsZero() && v.unknown == "" {
			if x.env.FIB != nil {
				a = x.env.FIB.TProxyAddr(st.Family, st.In, st.Local)
			} else {
				v.unknown = "the address of the incoming interface"
			}
		}
		p := []valued{{v.Class, port, ""}}
		if t.Port != nil {
			p = x.evaluate(v.Class, t.Port)
		}
		for _, pv := range p {
			pt := uint16(pv.value.Lo)
			if pt == 0 {
				pt = st.LocalPort
			}
			found := CannotTell
			if v.unknown == "" && pv.unknown == "" && x.env.TProxyTo != nil {
				found = x.env.TProxyTo(st, a.Addr(st.Family), pt)
			}
			d := pv.Class
			switch {
			case found == CannotTell:
				x.opaqueEnd(d, "a TPROXY socket")
			case found == No && t.XT:
				x.end(d, FateDrop, x.rule.Chain, x.rule, nil, "no socket listens where TPROXY points")
			case found == No:
				x.skip(d, No, "no socket listens where tproxy points")
			default:
				d.State.TProxied, d.State.TProxyAddr, d.State.TProxyPort = true, a, pt
				if t.XT {
					d.State.Mark.Value = (d.State.Mark.Value &^ t.MarkMask) ^ t.MarkValue
					d.State.normalise()
					x.note(&d, x.rule.Chain, x.rule, Yes, Accept, "")
					x.accepted = append(x.accepted, d)
					continue
				}
				out = append(out, alive{Class: d})
			}
		}
	}
	return out
}
