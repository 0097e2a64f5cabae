package diagnose

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
)

// WatchOptions say what to watch.
type WatchOptions struct {
	Proto uint8 // IPPROTO_TCP or IPPROTO_UDP
	Port  uint16
	// To is the address dialled, invalid for every address of this host; From the
	// only client that counts, invalid for all.
	To, From netip.Addr
	For      time.Duration
	// Read reads the host in the calling thread's network namespace; ask are the
	// clients that questions will be about.
	Read func(ctx context.Context, ask []netip.Addr) (*audit.Snapshot, error)
	// Facts name cloud and panel, nil for not read.
	Facts *HostFacts
	// Began is told the report as far as it is known when the watch begins, Each
	// every attempt when it is known where it ended. Both may be nil.
	Began func(*WatchReport)
	Each  func(*Sighting)
}

// The pauses of a watch.
const (
	tickIdle  = 200 * time.Millisecond // between looks at a quiet port
	tickBusy  = 5 * time.Millisecond   // for an attempt's packets to come together
	readGap   = 500 * time.Millisecond // between two readings of the host, at least
	readShare = 10                     // and this many times what a reading takes
	// silence is when an attempt without an answer is told: after its SYNs of 0, 1
	// and 3 s.
	silence = 3300 * time.Millisecond
	// settled is how long after an answer the counters are sure to be read.
	settled = 30 * time.Millisecond
)

// ErrNoTap says that packets may not be watched.
var ErrNoTap = errors.New("watching packets takes CAP_NET_RAW (run it as root)")

// watcher is one watch while it runs.
type watcher struct {
	o      WatchOptions
	tap    *Tap
	ledger ledger
	track  *tracker
	world  *worldView
	report *WatchReport
	lost   uint64
	// looked counts searches for owners in the current second.
	looked   int
	lookedAt time.Time
	// shown counts attempts told in the current second, unshown those beyond.
	shown, unshown int
	shownAt        time.Time
	sampled        time.Time
	following      []uint16
}

// Watch watches attempts to connect arrive until the time is over or ctx ends,
// and says where each one ended. It reads and listens, and changes nothing: no
// rule, no setting, no promiscuous mode. It must stay on the calling goroutine's
// thread where that is in a network namespace of its own.
func Watch(ctx context.Context, o WatchOptions) (*WatchReport, error) {
	want := tapFor{proto: o.Proto, port: o.Port, flags: flagSYN | flagRST | flagFIN}
	tap, err := openTap(want)
	if errors.Is(err, unix.EPERM) {
		return nil, ErrNoTap
	}
	if err != nil {
		return nil, err
	}
	defer tap.Close()
	w := &watcher{o: o, tap: tap, track: newTracker(want, o.To, o.From)}
	if err := w.ledger.read(ctx); err != nil {
		return nil, fmt.Errorf("read the counters: %w", err)
	}
	if w.world, err = readWorld(ctx, o.Read, valid(o.From)); err != nil {
		return nil, fmt.Errorf("read the host: %w", err)
	}
	w.track.local = func(a netip.Addr) bool { return w.world.local(a) }
	w.track.began = func(f *flow) { f.before = w.world }
	w.begin()
	end := time.Now().Add(o.For)
	for ctx.Err() == nil {
		left := time.Until(end)
		if left <= 0 {
			break
		}
		w.tick(ctx, min(left, tickIdle))
	}
	w.report.Stopped = ctx.Err() != nil
	w.finish(context.WithoutCancel(ctx))
	return w.report, nil
}

func valid(a netip.Addr) []netip.Addr {
	if !a.IsValid() {
		return nil
	}
	return []netip.Addr{a}
}

// begin fills in what is known from the start.
func (w *watcher) begin() {
	r := &WatchReport{Schema: WatchSchema, Target: w.target(), Proto: w.proto(), Began: time.Now().UTC(), Sightings: []*Sighting{}, Groups: []WatchGroup{}, Notes: []string{}, Interfaces: []audit.Text{}}
	if w.o.From.IsValid() {
		r.From = w.o.From.String()
	}
	if rt := w.world.home().Route; rt != nil {
		last := []audit.Text{}
		for _, l := range rt.Links {
			switch {
			case !l.Up():
			case l.Loopback():
				last = append(last, audit.Text(l.Name))
			default:
				r.Interfaces = append(r.Interfaces, audit.Text(l.Name))
			}
		}
		if r.Interfaces = append(r.Interfaces, last...); len(r.Interfaces) == 0 {
			r.Notes = append(r.Notes, "no interface is up, so nothing can arrive")
		}
	}
	w.report = r
	w.gaps()
	if w.o.Began != nil {
		w.o.Began(r)
	}
}

func (w *watcher) proto() string {
	if w.o.Proto == ipTCP {
		return "tcp"
	}
	return "udp"
}

func (w *watcher) target() string {
	if w.o.To.IsValid() {
		return netip.AddrPortFrom(w.o.To, w.o.Port).String()
	}
	return itoa(int(w.o.Port))
}

// gaps takes over what could not be read of the host and bears on its answers.
func (w *watcher) gaps() {
	r := w.report
	r.Incomplete = []audit.Gap{}
	home := w.world.home()
	for _, part := range []string{"firewall", "routes", "listeners", "programs"} {
		if why, ok := home.Unread[part]; ok {
			r.Incomplete = append(r.Incomplete, audit.Gap{What: part, Why: why})
		}
	}
	if w.lost > 0 {
		r.LostPackets = w.lost
		r.Incomplete = append(r.Incomplete, audit.Gap{What: "packets", Why: fmt.Sprintf("%d came faster than they could be looked at; attempts may be missing or counted short", w.lost)})
	}
}

// tick waits for packets and takes in what came.
func (w *watcher) tick(ctx context.Context, wait time.Duration) {
	if w.tap.Wait(wait) {
		time.Sleep(tickBusy)
	}
	w.drain(ctx)
	now := time.Now()
	w.reopen()
	w.sockets(now)
	w.follow(now)
	if gen, ok := generation(); ok && w.world.genKnown && gen != w.world.gen {
		w.reread(ctx, false)
	}
	// By the time of the last counters: what came after them cannot be judged yet,
	// however long this process was kept waiting since.
	w.conclude(ctx, w.ledger.lastAt, false)
	w.track.sweep(now)
}

// drain takes the packets that are there, and reads the counters.
func (w *watcher) drain(ctx context.Context) {
	ps := w.tap.Read()
	if len(ps) == 0 || time.Since(w.sampled) > 4*tickBusy {
		// A reading that fails leaves a longer interval behind.
		if w.ledger.read(ctx) == nil {
			w.sampled = time.Now()
		}
		if len(ps) < maxRead {
			ps = append(ps, w.tap.Read()...)
		}
	}
	for i := range ps {
		w.ledger.count(ps[i].At, w.track.take(&ps[i]))
	}
	w.ledger.settle()
	if n, err := w.tap.Lost(); err == nil {
		w.lost += uint64(n)
	}
}

// reopen judges attempts again that seemed lost and were answered after all.
func (w *watcher) reopen() {
	for _, f := range w.track.order {
		if !f.told || f.sighting == nil || f.sighting.SYNACK > 0 || f.sighting.RST > 0 || f.sighting.ICMP > 0 {
			continue
		}
		if f.answered.count+f.reset.count+f.refused.count > 0 {
			w.forgetTold(f)
		}
	}
}

// sockets looks for the connections that were answered.
func (w *watcher) sockets(now time.Time) {
	if w.o.Proto != ipTCP {
		return
	}
	looks := 0
	for _, f := range w.track.order {
		if f.told || f.answered.count == 0 || !f.sock.due(now.Sub(f.answered.first())) {
			continue
		}
		if looks++; looks > 64 {
			return
		}
		f.sock.look(f.to, f.from)
	}
}

// follow has the tap take everything from clients whose handshake is not
// complete: whether their acknowledgement arrives decides.
func (w *watcher) follow(now time.Time) {
	if w.o.Proto != ipTCP {
		return
	}
	var ports []uint16
	for _, f := range w.track.order {
		if f.told || f.answered.count == 0 || f.acked || f.sock.established || now.Sub(f.answered.first()) < looksAt[3] || len(ports) == maxFollow {
			continue
		}
		f.followed = true
		ports = append(ports, f.from.Port())
	}
	if !slices.Equal(ports, w.following) && w.tap.follow(ports) == nil {
		w.following = ports
	}
}

// reread reads the host again; false where it was read too lately.
func (w *watcher) reread(ctx context.Context, now bool) bool {
	took := w.world.at.Sub(w.world.began)
	if !now && time.Since(w.world.at) < max(readGap, readShare*took) {
		return false
	}
	var ask []netip.Addr
	for _, f := range w.track.order {
		if a := f.from.Addr(); !f.told && len(ask) < 64 && !slices.Contains(ask, a) {
			ask = append(ask, a)
		}
	}
	v, err := readWorld(ctx, w.o.Read, ask)
	if err != nil {
		return false
	}
	w.world = v
	return true
}

// ripe tells that an attempt can be judged; fresh that a reading of the host
// later than its packets is needed for that.
func (w *watcher) ripe(f *flow, now time.Time) (ripe, fresh bool) {
	since := func(p *pass) time.Duration { return now.Sub(p.first()) }
	if f.proto != ipTCP {
		switch {
		case f.answered.count > 0:
			return since(&f.answered) > settled, false
		case f.refused.count > 0:
			return since(&f.refused) > settled, true
		}
		return since(&f.asked) > 2*time.Second, true
	}
	switch {
	case f.answered.count > 0:
		age := since(&f.answered)
		switch {
		case f.gaveUp, f.cut, f.closedHere, f.reset.count > 0:
			return age > settled, false
		case f.sock.inode != 0, f.closedThere && f.sock.gone && f.sock.at.After(f.over):
			return true, false
		case f.sock.established || f.answered.count > 1 || f.sock.state != 0:
			return f.sock.tries == len(looksAt) || age > 3*time.Second, true
		}
		return age > 1400*time.Millisecond, false
	case f.reset.count > 0:
		return since(&f.reset) > settled, true
	case f.refused.count > 0:
		return since(&f.refused) > settled, true
	}
	return since(&f.asked) > silence, true
}

// conclude judges what is ripe; at the end of the watch everything.
func (w *watcher) conclude(ctx context.Context, now time.Time, all bool) {
	for _, f := range w.track.order {
		if f.told {
			continue
		}
		ripe, fresh := w.ripe(f, now)
		if !ripe && !all {
			continue
		}
		// Rules of iptables change without a sign: what was answered against the last
		// reading is held against a new one.
		if f.answered.count > 0 && !fresh {
			x := w.world.expect(f)
			fresh = x.known && x.f.sees != Connected
		}
		if fresh && w.world.began.Before(f.last()) && !w.reread(ctx, all) && !all {
			continue
		}
		w.tell(ctx, f, now, all && !ripe)
	}
}

// last is when the packets came that an attempt is judged by.
func (f *flow) last() time.Time {
	t := f.asked.last
	if n := len(f.asked.times); n > 0 { // retransmissions move nothing new
		t = f.asked.times[n-1]
	}
	for _, p := range []*pass{&f.answered, &f.reset, &f.refused} {
		if p.count > 0 && p.first().After(t) {
			t = p.first()
		}
	}
	return t
}

// tell judges one attempt, and notes it.
func (w *watcher) tell(ctx context.Context, f *flow, now time.Time, early bool) {
	s := &seen{f: f, before: f.before, after: w.world, now: now}
	s.w, s.counted = w.ledger.around(f.asked.times)
	s.r, s.reset = w.ledger.around(f.reset.times)
	s.y = s.after.expect(f)
	s.x = s.y
	if s.before != s.after {
		s.x = s.before.expect(f)
	}
	quiet := f.answered.count+f.reset.count+f.refused.count == 0
	var v verdict
	if early && quiet && now.Sub(f.asked.first()) < 250*time.Millisecond {
		v = verdict{end: EndUnderWay, sure: CannotTell}
		v.add("packets", "%s in; the watch ended before an answer was due", s.unit(f.asked.count))
	} else {
		v = judgeFlow(s)
	}
	if f.sock.inode != 0 && !f.sock.owned && w.mayLook(now) {
		f.sock.find(ctx)
	}
	g := w.sighting(s, &v)
	f.told, f.sighting, f.before = true, g, nil
	w.note(f, g, &v)
	if w.o.Each != nil {
		if w.mayShow(now) {
			w.o.Each(g)
		} else {
			w.unshown++
		}
	}
}

// mayLook bounds how often processes are looked through.
func (w *watcher) mayLook(now time.Time) bool {
	if now.Sub(w.lookedAt) > time.Second {
		w.looked, w.lookedAt = 0, now
	}
	w.looked++
	return w.looked <= ownersAtOnce
}

// shownAtOnce bounds how many attempts are told in a second.
const shownAtOnce = 50

func (w *watcher) mayShow(now time.Time) bool {
	if now.Sub(w.shownAt) > time.Second {
		w.shown, w.shownAt = 0, now
	}
	w.shown++
	return w.shown <= shownAtOnce
}

// finish judges what is left, and sums up.
func (w *watcher) finish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	w.drain(ctx)
	time.Sleep(settled + slack)
	w.drain(ctx)
	now := time.Now()
	w.reopen()
	w.sockets(now)
	w.conclude(ctx, now, true)
	for _, f := range w.track.order {
		if f.sighting != nil {
			f.sighting.SYN, f.sighting.SYNACK, f.sighting.RST, f.sighting.ICMP = f.asked.count, f.answered.count, f.reset.count, f.refused.count
		}
	}
	r := w.report
	r.Watched = now.Sub(r.Began).Seconds()
	r.Attempts, r.NotFollowed, r.Others, r.Passing = w.track.all, w.track.untracked, w.track.others, w.track.passing
	w.gaps()
	w.sum()
}

// ms words a duration as people measure handshakes.
func ms(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(d)/1e6)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// times words a number of things.
func times(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	if strings.HasSuffix(thing, "s") {
		return fmt.Sprintf("%d %ses", n, thing)
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
