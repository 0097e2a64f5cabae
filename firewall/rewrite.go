package firewall

import "fmt"

// rewrite carries out a statement that changes the packet or its connection
// and lets it go on.
func (x *ruleWalk) rewrite(c Class, s Stmt) []alive {
	switch s := s.(type) {
	case *SetField:
		return x.setField(c, s)
	case *Connmark:
		st := &c.State
		if !st.tracked() {
			return one(c) // connmark_tg: no connection, XT_CONTINUE
		}
		unknown := st.Mark.Unknown || st.CTMark.Unknown
		if s.ToConnection {
			st.CTMark = Known{(st.CTMark.Value &^ s.CTMask) ^ (st.Mark.Value & s.NFMask), unknown}
		} else {
			st.Mark = Known{(st.Mark.Value &^ s.NFMask) ^ (st.CTMark.Value & s.CTMask), unknown}
		}
		st.normalise()
	case *SetPayload:
		// Elsewhere than in a route chain only the routing can tell.
		c.State.rewrote(s, x.env.DSCP || x.at != nil && x.at.Base.Type == ChainRoute)
	case *Notrack:
		// nft_notrack_eval, notrack_tg: only packets that have no connection yet.
		if c.State.CTState == 0 && !c.State.Template {
			c.State.CTState = CTUntracked
		}
	case *CTTemplate:
		// xt_ct_target: only packets without a connection; the template's zone
		// and helper go to the connection that conntrack makes.
		zone := s.Zone
		if s.ZoneOfMark {
			if zone = uint16(c.State.Mark.Value); c.State.Mark.Unknown {
				x.opaqueEnd(c, "the zone of the connection, which is the packet's mark")
				return nil
			}
		}
		if c.State.template(zone, s.Dir, false) {
			c.State.CTHelper = s.Helper
		}
	case *SetUpdate:
		if s.Limited != "" {
			x.fork(&c, Condition{Rule: x.rule, Why: s.Limited})
			x.skip(c, CannotTell, s.Limited)
		}
		if s.Set != nil && !c.State.touches(s.Set) || s.Set == nil && !c.State.touchesNamed(s.Name) {
			c.State.touched = &touched{name: s.Name, set: s.Set, next: c.State.touched}
		}
	default:
		x.opaqueEnd(c, fmt.Sprintf("the statement %T, which the evaluator does not know", s))
		return nil
	}
	return one(c)
}

// longWay is a TTL that no path of the Internet uses up.
const longWay = 32

// rewrote notes a change of the header. Of DSCP and TTL nothing else in the
// packet depends that a rule could ask; a small TTL lets it die on its way, and
// routing rules may ask for the DSCP field.
func (s *State) rewrote(p *SetPayload, dscp bool) {
	switch p.Field {
	case FieldDSCP:
		s.DSCPSet = s.DSCPSet || dscp
	case FieldTTL:
		v, known := p.From.(Const)
		s.HopLimit, s.ShortWay = 0, !known || v.Value.Lo < longWay
		if known {
			s.HopLimit = uint8(v.Value.Lo)
		}
	default:
		s.RewroteHeader = "a rule"
	}
}

func one(c Class) []alive { return []alive{{Class: c}} }

// normalise makes unknown numbers equal, so that states compare.
func (s *State) normalise() {
	for _, k := range []*Known{&s.Mark, &s.CTMark, &s.Priority} {
		if k.Unknown {
			k.Value = 0
		}
	}
}

// valued is a class together with the value a source has for it.
type valued struct {
	Class
	value   Value
	unknown string
}

// evaluate gives the value of a source over a class, which a map may split. The
// classes that find no element leave the rule.
func (x *ruleWalk) evaluate(c Class, src Source) []valued {
	switch src := src.(type) {
	case Const:
		return []valued{{c, src.Value, ""}}
	case *FromField:
		r := c.read(src.Operand.Field, x.env)
		switch r.kind {
		case readConst:
			if !r.unsure.And(src.Operand.Mask).IsZero() {
				return []valued{{c, Value{}, r.why}}
			}
			return []valued{{c, src.Operand.apply(r.value), ""}}
		case readAbsent:
			x.skip(c, No, "")
			return nil
		case readRemote, readPort:
			return []valued{{c, Value{}, "a value taken from the client's address or port"}}
		default:
			return []valued{{c, Value{}, r.why}}
		}
	case *FromMap:
		return x.evaluateMap(c, src)
	case FromNowhere:
		return []valued{{c, Value{}, src.Why}}
	default:
		return []valued{{c, Value{}, "a value the model does not know"}}
	}
}

func (x *ruleWalk) evaluateMap(c Class, src *FromMap) []valued {
	l := lookUp(&c, x.env, src.Keys, src.Map, true)
	for _, p := range append(l.none, l.breaks...) {
		x.skip(c.with(p), No, "")
	}
	var out []valued
	take := func(c Class, d *Datum) {
		if d == nil || len(d.Bytes) < src.Offset+src.Len {
			out = append(out, valued{c, Value{}, "an element of map " + src.Map.Name + " without data"})
			return
		}
		b := d.Bytes[src.Offset:]
		if src.Len > 0 {
			b = b[:src.Len]
		}
		out = append(out, valued{c, keyValue(b, src.HostOrder), ""})
	}
	for _, p := range l.maybe {
		if l.might.ways() > 0 {
			x.eachWay(c.with(p), l.might, l.why, take)
			continue
		}
		// It may find an element or none.
		d := c.with(p)
		x.fork(&d, Condition{Rule: x.rule, Why: l.why})
		x.skip(d, CannotTell, l.why)
		out = append(out, valued{d, Value{}, l.why})
	}
	for _, f := range l.found {
		take(c.with(f.Piece), f.datum)
	}
	return out
}

func (x *ruleWalk) setField(c Class, s *SetField) []alive {
	var out []alive
	for _, v := range x.evaluate(c, s.From) {
		c := v.Class
		k := Known{Value: uint32(v.value.Lo), Unknown: v.unknown != ""}
		st := &c.State
		switch s.Kind {
		case FieldMark:
			st.Mark = s.keep(st.Mark, k)
		case FieldCTMark:
			if !st.tracked() {
				break // nft_ct_set_eval: no connection, nothing happens
			}
			st.CTMark = s.keep(st.CTMark, k)
		case FieldPriority:
			st.Priority = s.keep(st.Priority, k)
		case FieldPktType:
			if k.Unknown {
				x.opaqueEnd(c, v.unknown)
				continue
			}
			st.PktType = uint8(k.Value)
		case FieldCTZone:
			if k.Unknown {
				x.opaqueEnd(c, v.unknown)
				continue
			}
			st.template(uint16(k.Value), s.Dir, true)
		case FieldCTHelper:
			if st.tracked() {
				st.CTHelper = v.value.Name()
			}
		case FieldCTLabel:
			st.CTLabelled = true
		}
		st.normalise()
		out = append(out, alive{Class: c})
	}
	return out
}

func (s *SetField) keep(old, v Known) Known {
	if s.Keep == nil {
		return v
	}
	return Known{(old.Value & uint32(s.Keep.Lo)) ^ v.Value, old.Unknown || v.Unknown}
}
