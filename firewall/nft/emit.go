package nft

import (
	"slices"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// emit appends a statement. What loads have been made and not compared is
// asked for first: nf_tables ends a rule where a load fails.
func (r *run) emit(s fw.Stmt) {
	r.flush()
	r.stmts = append(r.stmts, s)
}

// flush appends the matches that loads without a comparison amount to.
func (r *run) flush() {
	for i := unknownOrigin + 1; i < len(r.m.origins); i++ {
		o := &r.m.origins[i]
		if !o.pending {
			continue
		}
		o.pending = false
		switch o.kind {
		case originField:
			r.present(o.op)
		case originPayload:
			r.presentPayload(o)
		case originMap:
			r.stmts = append(r.stmts, &fw.Lookup{Keys: o.keys, Set: o.set})
		}
	}
}

// present asks that the packet has the field.
func (r *run) present(op fw.Operand) {
	if op.Field.Kind == fw.FieldUnknown {
		r.stmts = append(r.stmts, &fw.Opaque{Name: "load", Reason: op.Why, Raw: r.d.keep(r.raw)})
		return
	}
	if alwaysPresent(op.Field.Kind) {
		return
	}
	if f := op.Field; f.Kind == fw.FieldPayload && f.A == baseNetwork && f.B+f.C <= 20 {
		return // inside the smallest IP header
	}
	n := op.Len
	r.stmts = append(r.stmts, r.intern(&fw.Match{Operand: fw.Operand{Field: op.Field, Len: n, Mask: fw.MaxValue(n)}, In: r.span(fw.Value{}, fw.MaxValue(n))}))
}

func (r *run) presentPayload(o *origin) {
	if f, ok := r.g.wholeField(o.base, o.offset); ok && o.offset+o.length <= f.offset+f.length {
		if f.kind == fw.FieldPayload {
			return // DSCP and ECN are in every header
		}
		r.present(fw.Plain(f.kind, f.length))
		return
	}
	n := min(o.length, 16)
	op := fw.Plain(fw.FieldPayload, n)
	op.Field = fw.Field{Kind: fw.FieldPayload, A: uint32(o.base), B: uint32(o.offset + o.length - n), C: uint32(n)}
	r.present(op)
}

// alwaysPresent reports whether every IP packet that a rule can see has the
// field.
func alwaysPresent(k fw.FieldKind) bool {
	switch k {
	case fw.FieldNFProto, fw.FieldEtherType, fw.FieldL4Proto, fw.FieldIPProto, fw.FieldSrcAddr, fw.FieldDstAddr, fw.FieldIPVersion,
		fw.FieldFragment, fw.FieldLength, fw.FieldTTL, fw.FieldDSCP, fw.FieldECN, fw.FieldInIndex, fw.FieldInName, fw.FieldOutIndex,
		fw.FieldOutName, fw.FieldPktType, fw.FieldMark, fw.FieldPriority, fw.FieldCTState, fw.FieldCPU, fw.FieldRandom, fw.FieldTime, fw.FieldExtHdr:
		return true
	}
	return false
}

// match appends a match and learns from it. Two matches in a row on the same
// thing become one: nft writes a range as two comparisons. Chance is another
// thing each time.
func (r *run) match(m *fw.Match) {
	r.g.learn(m)
	r.flush()
	if n := len(r.stmts); n > 0 && !m.Invert && !m.WantAbsent && m.Operand.Field.Kind != fw.FieldRandom {
		if last, ok := r.stmts[n-1].(*fw.Match); ok && !last.Invert && !last.WantAbsent && last.Operand == m.Operand {
			r.stmts = r.stmts[:n-1]
			m.In = last.In.Intersect(m.In)
		}
	}
	r.stmts = append(r.stmts, r.intern(m))
}

// emitNever appends a match that no packet passes.
func (r *run) emitNever() {
	r.emit(r.intern(&fw.Match{Operand: fw.Plain(fw.FieldNFProto, 1)}))
}

// unsure appends an opaque match: it may match or not.
func (r *run) unsure(name, why string) {
	r.emit(&fw.Opaque{Name: name, Reason: why, Raw: r.d.keep(r.raw)})
}

// opaque appends an opaque statement that may do anything, registers included.
func (r *run) opaque(name, why string) {
	r.emit(&fw.Opaque{Name: name, Reason: why, Raw: r.d.keep(r.raw), MayEnd: true})
	r.m.forget(0, registerBytes, "a value that "+why+" may have changed")
	r.g = guards{family: familyGuard(r.t.table.Family)}
}

// incomplete is for an expression without an attribute that it needs.
func (r *run) incomplete(name string) {
	r.opaque(name, "a form of the expression "+name+" that the model does not know")
}

// internBits is the size of the table of shared matches.
const internBits = 12

// intern returns a match that stays, shared with an equal one of another rule
// where that is at hand: most rules are made of a few protocols, ports and
// interfaces. The values of m are only borrowed.
func (r *run) intern(m *fw.Match) *fw.Match {
	if len(m.In) != 1 || m.WantAbsent {
		kept := *m
		kept.In = slices.Clone(m.In)
		return &kept
	}
	f := m.Operand.Field
	h := uint64(f.Kind)<<40 ^ uint64(f.A)<<20 ^ uint64(f.B)<<8 ^ m.In[0].Lo.Lo ^ m.In[0].Lo.Hi*31 ^ m.In[0].Hi.Lo<<7 ^ m.Operand.Mask.Lo<<3
	if m.Invert {
		h++
	}
	slot := &r.d.matches[h*0x9e3779b97f4a7c15>>(64-internBits)]
	if got := *slot; got != nil && got.In[0] == m.In[0] && got.Invert == m.Invert && got.Operand == m.Operand {
		return got
	}
	kept := new(fw.Match)
	*kept = *m
	kept.In = r.keepRange(m.In[0])
	*slot = kept
	return kept
}

// keepRange is a set of one interval, out of a larger allocation.
func (r *run) keepRange(v fw.Range) fw.Ranges {
	if len(r.d.ranges) == 0 {
		r.d.ranges = make([]fw.Range, 512)
	}
	s := r.d.ranges[:1:1]
	r.d.ranges = r.d.ranges[1:]
	s[0] = v
	return s
}

// single and span are fw.Single and fw.Span; what they return is good until
// the rule ends.
func (r *run) single(v fw.Value) fw.Ranges { return r.span(v, v) }

func (r *run) span(lo, hi fw.Value) fw.Ranges {
	if hi.Less(lo) {
		return nil
	}
	n := len(r.scratch)
	r.scratch = append(r.scratch, fw.Range{Lo: lo, Hi: hi})
	return r.scratch[n : n+1 : n+1]
}
