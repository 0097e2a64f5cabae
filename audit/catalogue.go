package audit

import "slices"

// Find looks a check up by its id, or by the id of one of its findings; nil where
// there is none.
func Find(checks []*Check, id string) *Check {
	if i := slices.IndexFunc(checks, func(c *Check) bool { return c.ID == id }); i >= 0 {
		return checks[i]
	}
	if i := slices.IndexFunc(checks, func(c *Check) bool { return slices.Contains(c.FindingIDs(), id) }); i >= 0 {
		return checks[i]
	}
	return nil
}
