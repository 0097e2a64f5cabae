package listeners

// LimitSource says what set the limit of an accept queue.
type LimitSource string

// The sources of a limit.
const (
	// LimitApplication: less than somaxconn allows now. The application asked for
	// that, or somaxconn was lower when it called listen(2): the kernel keeps neither.
	LimitApplication LimitSource = "application"
	// LimitSomaxconn: the limit is somaxconn as it is now; the application asked
	// for that or more.
	LimitSomaxconn LimitSource = "somaxconn"
	// LimitEarlier: the limit is above today's somaxconn, which was lowered after
	// listen(2).
	LimitEarlier LimitSource = "earlier-somaxconn"
)

// LimitedBy names what set the queue's limit, given somaxconn as it is now:
// listen(2) takes the smaller of the two once and for all (__inet_listen_sk).
func (q Queue) LimitedBy(somaxconn uint32) LimitSource {
	switch {
	case q.Limit == somaxconn:
		return LimitSomaxconn
	case q.Limit > somaxconn:
		return LimitEarlier
	}
	return LimitApplication
}

// QueueChange is one listener in two readings.
type QueueChange struct {
	Listener Listener `json:"listener"` // as read later
	Before   Queue    `json:"before"`
	// Dropped is how much the socket threw away in between; Known is false where
	// the kernel does not count by socket.
	Dropped uint32 `json:"dropped"`
	Known   bool   `json:"known"`
}

// QueueChanges compares two tables of one namespace by the sockets' cookies.
// Listeners that are in one of them only are left out.
func QueueChanges(earlier, later *Table) []QueueChange {
	before := make(map[uint64]Queue, len(earlier.Listeners))
	for i := range earlier.Listeners {
		if l := &earlier.Listeners[i]; l.Cookie != 0 {
			before[l.Cookie] = l.Accept
		}
	}
	var out []QueueChange
	for _, l := range later.Listeners {
		q, ok := before[l.Cookie]
		if !ok || l.Cookie == 0 {
			continue
		}
		c := QueueChange{Listener: l, Before: q}
		if q.Drops != nil && l.Accept.Drops != nil {
			c.Dropped, c.Known = *l.Accept.Drops-*q.Drops, true
		}
		out = append(out, c)
	}
	return out
}
