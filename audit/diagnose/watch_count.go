package diagnose

import (
	"context"
	"time"

	"github.com/hostaudit/hostaudit/listeners"
)

// interval is the time between two readings of the counters, what they rose by,
// and what the tap saw of the port meanwhile.
type interval struct {
	from, to time.Time
	delta    listeners.Counters
	dropped  listeners.Counters // of connection tracking, nil without it
	asked    int
	reset    int
}

// slack is how far a packet's time and the reading of the counters that its fate
// moved may be apart.
const slack = 3 * time.Millisecond

// maxIntervals bounds the past that is kept: more than the longest wait for a
// verdict takes.
const maxIntervals = 1024

// ledger keeps the intervals of a watch.
type ledger struct {
	last      *listeners.Sample
	lastAt    time.Time
	intervals []*interval
	// idle sums up the intervals in which the port was quiet: what the counters
	// do anyway.
	idle     listeners.Counters
	idleTime time.Duration
	// late are packets that came after the last reading.
	late []counted
}

// counted is what the tap saw at a time.
type counted struct {
	at time.Time
	n  tally
}

// read takes a reading of the counters of the calling thread's namespace.
func (l *ledger) read(ctx context.Context) error {
	s, err := listeners.ReadSample(ctx, "")
	if err != nil {
		return err
	}
	now := time.Now()
	if l.last != nil {
		if c, err := s.Sub(l.last); err == nil {
			l.intervals = append(l.intervals, &interval{from: l.lastAt, to: now, delta: c.Counters, dropped: c.Conntrack})
			if len(l.intervals) > maxIntervals {
				l.intervals = append(l.intervals[:0], l.intervals[maxIntervals/4:]...)
			}
		}
	}
	l.last, l.lastAt = s, now
	late := l.late
	l.late = nil
	for _, c := range late {
		l.count(c.at, c.n)
	}
	return nil
}

// count notes what the tap saw in an interval.
func (l *ledger) count(at time.Time, n tally) {
	if n == (tally{}) {
		return
	}
	if at.After(l.lastAt) {
		l.late = append(l.late, counted{at, n})
		return
	}
	for i := len(l.intervals) - 1; i >= 0; i-- {
		if v := l.intervals[i]; at.After(v.from) || i == 0 {
			v.asked += n.asked
			v.reset += n.reset
			return
		}
	}
}

// settle adds an interval that is over to the idle time, if it was idle.
func (l *ledger) settle() {
	n := len(l.intervals)
	if n == 0 || l.intervals[n-1].asked+l.intervals[n-1].reset > 0 {
		return
	}
	v := l.intervals[n-1]
	if l.idle == nil {
		l.idle = listeners.Counters{}
	}
	for name, d := range v.delta {
		l.idle[name] += d
	}
	l.idleTime += v.to.Sub(v.from)
}

// window sums up the intervals in which some packets passed.
type window struct {
	delta   listeners.Counters
	dropped uint64 // by connection tracking
	asked   int
	reset   int
	length  time.Duration
	l       *ledger
}

// around gives the window of packets with these times; ok is false where the
// counters have not been read since, or no longer reach back.
func (l *ledger) around(times ...[]time.Time) (w window, ok bool) {
	w = window{delta: listeners.Counters{}, l: l}
	if len(l.intervals) == 0 {
		return w, false
	}
	used := make([]bool, len(l.intervals))
	for _, list := range times {
		for _, at := range list {
			hit := false
			for i, v := range l.intervals {
				if !at.Before(v.from.Add(-slack)) && !at.After(v.to.Add(slack)) {
					used[i], hit = true, true
				}
			}
			if !hit || at.After(l.lastAt.Add(-slack)) {
				return w, false
			}
		}
	}
	first := true
	for i, v := range l.intervals {
		if !used[i] {
			continue
		}
		w.asked += v.asked
		w.reset += v.reset
		w.length += v.to.Sub(v.from)
		w.dropped += v.dropped["drop"]
		if first {
			for name, d := range v.delta {
				w.delta[name] = d
			}
			first = false
			continue
		}
		for name := range w.delta {
			d, known := v.delta[name]
			if !known {
				delete(w.delta, name)
				continue
			}
			w.delta[name] += d
		}
	}
	return w, true
}

// rose tells that a counter rose by n or more, and that it does not do so by
// itself: what is expected of it without this port's packets is below half.
func (w *window) rose(name string, n int) bool {
	return n > 0 && w.delta[name] >= uint64(n) && w.noise(name) < float64(n)/2
}

// noise is what a counter would have risen by in the window without this port's
// packets, as it did while the port was quiet.
func (w *window) noise(name string) float64 {
	if w.l.idleTime <= 0 {
		return 0
	}
	return float64(w.l.idle[name]) / w.l.idleTime.Seconds() * w.length.Seconds()
}

// known tells that a counter was read.
func (w *window) known(name string) bool { _, ok := w.delta[name]; return ok }

// ip names a counter of the packet's IP family.
func ipCounter(six bool, name string) string {
	if six {
		return "Ip6" + name
	}
	return "Ip." + name
}

// udpCounter names a counter of UDP over the packet's IP family.
func udpCounter(six bool, name string) string {
	if six {
		return "Udp6" + name
	}
	return "Udp." + name
}
