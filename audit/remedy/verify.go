package remedy

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// Verifier judges a fresh reading against the plan: what was to open is open,
// operators' connections stay, and nothing else has changed for any listener.
// before is the reading that the plan was made from.
func (s *System) Verifier(p *Plan, before *audit.Snapshot, paths []Path) func(context.Context) error {
	if len(p.openings) == 0 {
		return nil
	}
	return func(ctx context.Context) error {
		now, err := s.Read(ctx)
		if err != nil {
			return err
		}
		home := now.World.Namespaces[0]
		if home.Ruleset == nil || home.Route == nil || home.Listeners == nil {
			return fmt.Errorf("%w: rules, routes or listeners", errNoRules)
		}
		return p.verify(&before.World, &now.World, paths)
	}
}

func (p *Plan) verify(before, now *reach.World, paths []Path) error {
	after := exposures(now)
	if err := p.holds(compare(exposures(before), after, moved(before, now))); err != nil {
		return fmt.Errorf("more has changed than was planned: %w", err)
	}
	for _, o := range p.openings {
		x, ok := after[o.target.Subject()]
		if !ok {
			return fmt.Errorf("nothing listens on %s any more", o.target.Subject())
		}
		for _, r := range x.rows {
			if !keptOut(r) {
				continue
			}
			for _, f := range audit.Clients(r.From) {
				for _, in := range o.audience.Overlap(f) {
					if ranges([]netip.Prefix{in}).Minus(own(now, true)).Empty() {
						continue // the host's own address, which no client on the wire has
					}
					if !ranges(o.left).Intersect(ranges(append(o.left[:0:0], in))).Equal(ranges(append(o.left[:0:0], in))) {
						return fmt.Errorf("%s is still kept out of %s: %s by %s %s", in, o.target.Subject(), r.Words(), r.DecidedBy.Chain, r.DecidedBy.Text)
					}
				}
			}
		}
	}
	for _, path := range paths {
		if is, was := reaches(now, path), reaches(before, path); is.worse(was) {
			return fmt.Errorf("an operator's connection (%s) is cut off: %s", path, is)
		}
	}
	return nil
}
