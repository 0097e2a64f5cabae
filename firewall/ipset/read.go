package ipset

import (
	"context"
	"errors"
	"fmt"

	"github.com/hostaudit/hostaudit/firewall"
)

// Sets are all the sets of a network namespace.
type Sets struct {
	list    []*firewall.IPSet
	byName  map[string]*firewall.IPSet
	byIndex map[uint16]*firewall.IPSet
}

// All returns the sets in the order of the kernel.
func (s *Sets) All() []*firewall.IPSet {
	if s == nil {
		return nil
	}
	return s.list
}

// ByName returns the set of that name, nil for none.
func (s *Sets) ByName(name string) *firewall.IPSet {
	if s == nil {
		return nil
	}
	return s.byName[name]
}

// IPSet returns the set with the kernel's index, by which rules name it. A nil
// *Sets has none.
func (s *Sets) IPSet(index uint16) (*firewall.IPSet, error) {
	if s == nil {
		return nil, errors.New("the sets were not read")
	}
	if set := s.byIndex[index]; set != nil {
		return set, nil
	}
	return nil, fmt.Errorf("no set has the index %d", index)
}

// Read reads all sets of src. Without ipset there is none, and no error. On
// error the sets that were read by then are not returned.
func Read(ctx context.Context, src Source) (*Sets, error) {
	d := newDecoder()
	for msg, err := range src.List(ctx) {
		if errors.Is(err, ErrNotPresent) {
			return d.finish(), nil
		}
		if err != nil {
			return nil, err
		}
		if err := d.message(msg); err != nil {
			return nil, err
		}
	}
	for _, s := range d.sets {
		if d.indexed[s] {
			continue
		}
		i, err := src.Index(ctx, s.Name)
		if err != nil {
			return nil, err
		}
		s.Index = i
	}
	return d.finish(), nil
}

// finish links members and makes the look-ups.
func (d *decoder) finish() *Sets {
	out := &Sets{list: d.sets, byName: d.byName, byIndex: make(map[uint16]*firewall.IPSet, len(d.sets))}
	for _, s := range d.sets {
		out.byIndex[s.Index] = s
		for _, m := range d.members[s] {
			s.Members = append(s.Members, d.byName[m])
		}
		if s.Unread == "" {
			s.Count = s.N
		}
	}
	return out
}
