package firewall

import (
	"cmp"
	"slices"
)

// registered tells which of two base chains of one hook and priority runs first,
// where that is sure: a table's handles grow (nf_tables_alloc_handle), its chains
// are registered when they are made, or in that order when the table ceases to
// be dormant, and the later registered runs first. Chains of devices can get a
// device later. 0: not known.
func registered(a, b *Chain) int {
	if a == nil || b == nil || a.Table != b.Table || a.Handle == 0 || b.Handle == 0 || len(a.Base.Devices)+len(b.Base.Devices) > 0 {
		return 0
	}
	return cmp.Compare(b.Handle, a.Handle)
}

// idle reports whether a function lets every packet pass as it is.
func (s slot) idle() bool {
	return s.kind == slotChain && len(s.chain.Rules) == 0 && s.chain.Unread == "" && s.chain.Base.Policy != Drop
}

// settle brings neighbours of one table and priority into the order they run in.
func settle[T any](list []T, chain func(T) *Chain) {
	for i := 0; i < len(list); {
		j := i + 1
		for a := chain(list[i]); j < len(list); j++ {
			b := chain(list[j])
			if a == nil || b == nil || a.Table != b.Table || a.Base.Priority != b.Base.Priority {
				break
			}
		}
		slices.SortStableFunc(list[i:j], func(x, y T) int { return registered(chain(x), chain(y)) })
		i = j
	}
}

// maxOrders bounds the orders of functions of one priority that are tried: all of
// five functions. Of more each is tried first and last, too.
const maxOrders = 120

// orders lists the orders in which functions of one priority can run, as far as
// it is not known, that of the list first.
func orders(slots []slot) [][]int {
	var out [][]int
	used := make([]bool, len(slots))
	var extend func(order []int)
	extend = func(order []int) {
		if len(out) >= maxOrders {
			return
		}
		if len(order) == len(slots) {
			out = append(out, slices.Clone(order))
			return
		}
		for i := range slots {
			if used[i] || waits(slots, used, i) {
				continue
			}
			used[i] = true
			extend(append(order, i))
			used[i] = false
		}
	}
	extend(nil)
	if len(out) < maxOrders {
		return out
	}
	for i := range slots {
		first := []int{i}
		for j := range slots {
			if j != i {
				first = append(first, j)
			}
		}
		last := append(slices.Clone(first[1:]), i)
		for _, o := range [][]int{first, last} {
			if possible(slots, o) {
				out = append(out, o)
			}
		}
	}
	return out
}

// waits reports whether a function that is not used yet surely runs before i.
func waits(slots []slot, used []bool, i int) bool {
	for j := range slots {
		if j != i && !used[j] && registered(slots[j].chain, slots[i].chain) < 0 {
			return true
		}
	}
	return false
}

// possible reports whether an order agrees with what is known of it.
func possible(slots []slot, order []int) bool {
	for i, b := range order {
		for _, a := range order[:i] {
			if registered(slots[a].chain, slots[b].chain) > 0 {
				return false
			}
		}
	}
	return true
}
