package main

import "fmt"

// gate is a ceiling. Wall and CPU are ceilings of our median divided by theirs;
// Seconds and Megabytes are ceilings of ours alone. 0 is none.
type gate struct {
	id, title, against string
	wall, cpu          float64
	seconds            float64
	megabytes          float64
	// full: the ratio hangs on the size, so that the ceiling counts at full size
	// alone.
	full bool
}

// result is what was measured for a gate.
type result struct {
	Gate         string
	Ours, Theirs cost
	// Failed says why there is no measurement.
	Failed string `json:",omitempty"`
}

// mark is the verdict about one figure.
type mark struct {
	Value, Ceiling float64
}

func (m mark) missed() bool { return m.Value > m.Ceiling }

// marks are the figures of a gate that have a ceiling, in the order wall, CPU,
// seconds, megabytes; nil stands for none.
func (g gate) marks(r result) [4]*mark {
	var out [4]*mark
	ratio := func(ours, theirs float64) float64 {
		if theirs <= 0 { // nothing to compare with is no pass
			return 1e9
		}
		return ours / theirs
	}
	if g.wall > 0 {
		out[0] = &mark{ratio(r.Ours.Wall.Seconds(), r.Theirs.Wall.Seconds()), g.wall}
	}
	if g.cpu > 0 {
		out[1] = &mark{ratio(r.Ours.CPU.Seconds(), r.Theirs.CPU.Seconds()), g.cpu}
	}
	if g.seconds > 0 {
		out[2] = &mark{r.Ours.Wall.Seconds(), g.seconds}
	}
	if g.megabytes > 0 {
		out[3] = &mark{float64(r.Ours.RSS) / (1 << 20), g.megabytes}
	}
	return out
}

// status of a gate: "pass", "MISSED", "NOT MEASURED", or "full size only".
func (g gate) status(s settings, r result) string {
	switch {
	case r.Failed != "":
		return "NOT MEASURED"
	case g.full && s.Scale > 1:
		return "full size only"
	}
	for _, m := range g.marks(r) {
		if m != nil && m.missed() {
			return "MISSED"
		}
	}
	return "pass"
}

// verdict is the exit status: 2 outranks 1.
func verdict(s settings, results []result) int {
	code := 0
	if len(results) == 0 {
		return 2
	}
	for _, r := range results {
		g, err := gateOf(r.Gate)
		if err != nil {
			return 2
		}
		switch g.status(s, r) {
		case "NOT MEASURED":
			return 2
		case "MISSED":
			code = 1
		}
	}
	return code
}

func gateOf(id string) (gate, error) {
	for _, sc := range scenes {
		for _, g := range sc.gates {
			if g.id == id {
				return g, nil
			}
		}
	}
	return gate{}, fmt.Errorf("no gate %q", id)
}
