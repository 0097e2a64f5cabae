package diagnose

import "slices"

// message judges what a message says by itself.
func (j *judge) message() {
	s := j.e.Symptom
	if s == nil {
		return
	}
	ev := evidence("the client's message", "%s", s.Text)
	switch s.Kind {
	case KindUnsafePort:
		j.say(WrongPort, Confirmed, "browsers refuse some ports of their own accord (\"restricted\" or \"unsafe\" ports of the Fetch standard): let the service listen on another one", ev)
	case KindFiles:
		j.say(QueueFull, Likely, "raise the descriptor limit (LimitNOFILE= of the unit) and restart; then look for leaked connections", ev)
	case KindSocketFull:
		j.say(QueueFull, Likely, queueRemedy, ev)
	}
}

// leavesOpen tells a message that may mean something else than what it was taken
// for.
func (j *judge) leavesOpen(other Sees) bool {
	s := j.e.Symptom
	return s != nil && slices.Contains(s.Also, other)
}
