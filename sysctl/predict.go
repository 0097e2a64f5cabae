package sysctl

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Persisted is what one loader makes of the files for a key: the winner.
type Persisted struct {
	Loader Loader `json:"loader"`
	Value  string `json:"value"`
	File   string `json:"file"` // as the loader names it
	Line   int    `json:"line"`
	// Refused: the kernel does not take this text.
	Refused bool `json:"refused,omitempty"`
}

// Provenance is everything known about where a key's value comes from.
type Provenance struct {
	Key       Key                `json:"key"`
	Live      Value              `json:"live"`
	Persisted []Persisted        `json:"persisted"` // one for each loader that sets it
	Losers    map[Loader][]Loser `json:"losers,omitempty"`
	Overrides []Override         `json:"overrides,omitempty"`
	Reboot    Prediction         `json:"reboot"`
}

// Prediction is what a key will hold after the next reboot.
type Prediction struct {
	// Value is what it will hold; meaningful only when Known.
	Value string `json:"value,omitempty"`
	Known bool   `json:"known"`
	// Changes: Yes when the live value will not come back, No when it will.
	Changes Fact `json:"changes"`
	// Why says which file, program or default decides, or what cannot be told.
	Why string `json:"why"`
	// By is the line that decides, nil when none does.
	By *Place `json:"by,omitempty"`
}

// Host is all that the answers about persistence need.
type Host struct {
	Keys     *KeySet
	Live     Values
	Outcomes []*Outcome // one a loader, in the order of Loaders
	Boot     *Boot
	Kernel   Version

	forward map[Key]*forwardState // by group, of the loader that runs at boot

	mu    sync.Mutex
	want  []Key              // see wanted
	known map[Key]Provenance // what was worked out already
}

// wanted are the keys of which a report speaks, worked out once.
func (h *Host) wanted() []Key {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.want == nil {
		h.want = WantedKeys(h.Keys, h.Outcomes...)
	}
	return h.want
}

// Outcome returns what a loader does on this host.
func (h *Host) Outcome(l Loader) *Outcome {
	for _, o := range h.Outcomes {
		if o.Loader == l {
			return o
		}
	}
	return nil
}

// NewHost simulates both loaders and reads the boot from a capture.
func NewHost(t *Tree, keys *KeySet, live Values, kernel Version) *Host {
	h := &Host{Keys: keys, Live: live, Kernel: kernel}
	for _, l := range Loaders() {
		h.Outcomes = append(h.Outcomes, Simulate(l, t, keys))
	}
	h.Boot = DetectBoot(t, h.Outcomes...)
	h.forward = map[Key]*forwardState{}
	for _, group := range forwardGroups {
		s := newForwardState(group)
		if o := h.Outcome(Loader(h.Boot.Loader)); o != nil {
			for i := range o.Writes {
				s.write(&o.Writes[i])
			}
		}
		h.forward[group] = s
	}
	return h
}

// forwardGroups are the keys of which conf.all writes the rest.
var forwardGroups = []Key{"net.ipv4.conf.*.forwarding", "net.ipv6.conf.*.forwarding", "net.ipv6.conf.*.disable_ipv6"}

// Provenance says who sets a key, under each loader, and what a reboot brings.
// Callers do not change what they get: it is worked out once.
func (h *Host) Provenance(k Key) Provenance {
	h.mu.Lock()
	defer h.mu.Unlock()
	p, ok := h.known[k]
	if !ok {
		p = h.provenance(k)
		if h.known == nil {
			h.known = map[Key]Provenance{}
		}
		h.known[k] = p
	}
	return p
}

func (h *Host) provenance(k Key) Provenance {
	p := Provenance{Key: k, Live: h.Live[k], Losers: map[Loader][]Loser{}, Persisted: []Persisted{}}
	for _, o := range h.Outcomes {
		if w, ok := o.Winner(k); ok {
			a := o.Line(w)
			pe := Persisted{Loader: o.Loader, Value: w.Value, File: a.File, Line: a.Line}
			// A refused text leaves an earlier line's value in force.
			if e, in := Find(k); in {
				_, taken, known := e.store(h.Live[k].Text, w.Value)
				pe.Refused = known && !taken
			}
			p.Persisted = append(p.Persisted, pe)
		}
		if l := o.Losers(k); len(l) > 0 {
			p.Losers[o.Loader] = l
		}
	}
	if h.Boot != nil {
		for _, o := range h.Boot.Overrides {
			if o.Concerns(k) {
				p.Overrides = append(p.Overrides, o)
			}
		}
	}
	p.Reboot = h.predict(k, p.Overrides)
	return p
}

// predict answers "what will it be after the next reboot", or says what keeps
// it from answering.
func (h *Host) predict(k Key, overrides []Override) Prediction {
	p := h.predictFiles(k)
	for _, o := range overrides {
		switch {
		case o.Certain && o.Value != "" && o.Only == "" && !strings.Contains(o.When, "wins"):
			place := o.Place
			p = Prediction{Value: o.Value, Known: true, By: &place, Why: fmt.Sprintf("%s sets it later (%s), %s", o.Who, o.Place, o.When)}
		case o.Value != "" && p.Known && shapeOf(k).Equal(o.Value, p.Value):
			// It would set what is there anyway.
		default:
			p = Prediction{By: p.By, Why: fmt.Sprintf("%s; but %s may set it later (%s), %s", p.Why, o.Who, o.Place, o.When)}
		}
	}
	live := h.Live[k]
	switch {
	case !p.Known || live.State != Present:
		p.Changes = Unsure
	case shapeOf(k).Equal(p.Value, live.Text):
		p.Changes = No
	case h.ownInterface(k) && (p.By == nil || !h.writes(k)):
		// Nothing names this interface's key, and still it differs: the kernel set
		// it for this kind of device, or the program that configures it did and
		// will do so again.
		p.Known, p.Changes = false, Unsure
		p.Why += "; but the interface holds another value now, and who set it is not in the files"
	default:
		p.Changes = Yes
	}
	return p
}

// ownInterface says whether the key belongs to one interface.
func (h *Host) ownInterface(k Key) bool {
	iface, ok := k.Interface()
	return ok && iface != "all" && iface != "default"
}

// writes says whether the loader that runs at boot writes the key itself.
func (h *Host) writes(k Key) bool {
	o := h.Outcome(Loader(h.Boot.Loader))
	if o == nil {
		return false
	}
	_, ok := o.Winner(k)
	return ok
}

func shapeOf(k Key) Shape {
	if e, ok := Find(k); ok {
		return e.Shape
	}
	return ShapeText
}

// predictFiles is the prediction without programs that act later.
func (h *Host) predictFiles(k Key) Prediction {
	if h.Boot == nil {
		return Prediction{Why: "how the host starts was not read"}
	}
	var o *Outcome
	switch h.Boot.Loader {
	case BootSystemd:
		o = h.Outcome(LoaderSystemd)
	case BootProcps:
		o = h.Outcome(LoaderProcps)
	case BootNone:
		return h.kernelDefault(k, "nothing applies sysctl files at boot ("+h.Boot.Why+")")
	default:
		return Prediction{Why: "what applies sysctl files at boot is not known: " + h.Boot.Why}
	}
	if o == nil {
		return Prediction{Why: "the loader was not simulated"}
	}
	if len(o.Gaps) > 0 {
		return Prediction{Why: "not all files could be read: " + o.Gaps[0].String()}
	}
	if p, ok := h.predictForwarding(k, o); ok {
		return p
	}
	if _, ok := o.Winner(k); ok {
		return h.predictWritten(k, o)
	}
	iface, per := k.Interface()
	if !per || iface == "all" || iface == "default" {
		return h.kernelDefault(k, "no file that the boot applies sets it")
	}
	// A new interface starts with the values of "default" (inetdev_init,
	// ipv6_add_dev); writing an IPv4 default also changes the interfaces that
	// nobody has set (devinet_copy_dflt_conf).
	def := k.WithInterface("default")
	if _, ok := o.Winner(def); !ok {
		return h.kernelDefault(k, "no file that the boot applies sets it, nor conf.default")
	}
	p := h.predictWritten(def, o)
	if !p.Known {
		return p
	}
	if strings.HasPrefix(string(k), "net.ipv4.conf.") {
		p.Why = "taken over from conf.default: " + p.Why
		return p
	}
	return Prediction{By: p.By, Why: "conf.default counts for interfaces that appear after it was set, which cannot be told for " + iface + ": " + p.Why}
}

// predictWritten plays the loader's writes for a key.
func (h *Host) predictWritten(k Key, o *Outcome) Prediction {
	before := ""
	if e, ok := Find(k); ok {
		before = e.Default
	}
	value, by, known := o.InForce(k, before)
	w, _ := o.Winner(k)
	a := o.Line(w)
	place := Place{a.File, a.Line}
	switch {
	case by == nil && known:
		p := h.kernelDefault(k, fmt.Sprintf("the kernel refuses %q at %s", w.Value, a.Where()))
		return p
	case !known:
		if e, ok := Find(k); ok && e.Shape == ShapeText || !ok && by != nil && *by == w {
			known = true // free text is stored as it stands
		}
	}
	if by != nil && *by != w {
		b := o.Line(*by)
		place = Place{b.File, b.Line}
	}
	if !known {
		return Prediction{By: &place, Why: "set at " + place.String() + ", and what the kernel makes of that text cannot be told"}
	}
	if h.appearsLater(k) && !h.reapplied() {
		return Prediction{By: &place, Why: fmt.Sprintf("set at %s, but nothing applies the files again when the interface appears after boot-time loading", place)}
	}
	if k == "net.ipv4.conf.all.accept_redirects" && h.forwardingWrittenAfter(o, *by) {
		return Prediction{By: &place, Why: fmt.Sprintf("set at %s, but turning forwarding on or off afterwards resets it", place)}
	}
	if m := moduleOf(k); m != "" && h.isLate(k) {
		return Prediction{By: &place, Why: fmt.Sprintf("set at %s, but module %s may not be loaded when the file is applied", place, m)}
	}
	return Prediction{Value: value, Known: true, By: &place, Why: "set at " + place.String()}
}

// appearsLater says whether the key belongs to a real interface, which may come
// up after the files have been applied.
func (h *Host) appearsLater(k Key) bool {
	iface, ok := k.Interface()
	return ok && iface != "all" && iface != "default" && iface != "lo"
}

// reapplied says whether udev runs systemd-sysctl for new interfaces.
func (h *Host) reapplied() bool {
	return h.Boot.Loader == BootSystemd && h.Boot.PerInterface == Yes
}

// forwardingWrittenAfter: inet_forward_change resets conf.all.accept_redirects.
func (h *Host) forwardingWrittenAfter(o *Outcome, w Write) bool {
	after := false
	for _, x := range o.Writes {
		if x == w {
			after = true
		}
		if after && (x.Key == "net.ipv4.ip_forward" || x.Key == "net.ipv4.conf.all.forwarding") {
			return true
		}
	}
	return false
}

func (h *Host) isLate(k Key) bool {
	return slices.ContainsFunc(h.Boot.Late, func(l LateLine) bool {
		return l.Key == k || strings.ContainsAny(string(l.Key), "*?[")
	})
}

// kernelDefault is the prediction for a key that no file sets.
func (h *Host) kernelDefault(k Key, why string) Prediction {
	e, ok := Find(k)
	if !ok {
		return Prediction{Why: why + ", and the kernel's default is not known"}
	}
	if e.Default == "" && e.Shape != ShapePorts || e.DefaultNote != "" && !noteIsPast(e.DefaultNote, h.Kernel) {
		// A note means that the number depends on the version or the machine.
		note := e.DefaultNote
		if note == "" {
			note = "not known"
		}
		return Prediction{Why: why + "; the kernel's default is " + note}
	}
	return Prediction{Value: e.Default, Known: true, Why: why + "; the kernel's default"}
}

// noteIsPast says whether a note speaks of older kernels than this one only:
// "128 before Linux 5.4".
func noteIsPast(note string, kernel Version) bool {
	_, release, ok := strings.Cut(note, " before Linux ")
	if !ok || kernel == (Version{}) {
		return false
	}
	v, err := ParseVersion(release)
	return err == nil && kernel.AtLeast(v) && !strings.Contains(release, " ")
}

// predictForwarding handles keys that other keys write as well: ip_forward is
// conf.all.forwarding by another name, and turning either on or off sets every
// interface and the default (inet_forward_change, addrconf_forward_change);
// conf.all.disable_ipv6 does the same (addrconf_disable_ipv6). ok is false for
// all other keys, and where nothing of the kind is written.
func (h *Host) predictForwarding(k Key, o *Outcome) (Prediction, bool) {
	group := k.WithInterface("*")
	if k == "net.ipv4.ip_forward" {
		group = "net.ipv4.conf.*.forwarding"
	}
	state, ok := h.forward[group]
	if !ok {
		return Prediction{}, false
	}
	target := "all"
	if iface, ok := k.Interface(); ok {
		target = iface
	}
	if _, own := state.own[target]; own && h.appearsLater(k) && !h.reapplied() {
		return Prediction{Why: "nothing applies the files again when the interface appears after boot-time loading"}, true
	}
	present, later := state.present(target), state.later(target)
	if present.value != later.value {
		return Prediction{Why: "an interface that exists when the files are applied ends with " + present.value + ", one that appears later with " + later.value}, true
	}
	s := present
	if s.by == nil {
		s.by = later.by
	}
	if s.by == nil {
		return h.kernelDefault(k, "no file that the boot applies sets it"), true
	}
	a := o.Line(*s.by)
	place := Place{a.File, a.Line}
	why := "set at " + place.String()
	if s.by.Key != k {
		why = "follows " + string(s.by.Key) + ", set at " + place.String()
	}
	return Prediction{Value: s.value, Known: true, By: &place, Why: why}, true
}

// forwardState replays writes to a group of keys in which "all" writes the
// rest: IPv4 forwarding only when its value changes (devinet_sysctl_forward),
// the IPv6 keys always (addrconf_fixup_forwarding, addrconf_disable_ipv6).
type forwardState struct {
	group Key
	now   map[string]forwardValue // what interfaces that exist hold
	own   map[string]forwardValue // the last value each was given by name
	rest  forwardValue            // what those hold that nobody named
}

type forwardValue struct {
	value string
	by    *Write
}

func newForwardState(group Key) *forwardState {
	return &forwardState{
		group: group, now: map[string]forwardValue{}, own: map[string]forwardValue{},
		rest: forwardValue{value: "0"}, // all of these are off in a fresh kernel
	}
}

func (s *forwardState) write(w *Write) {
	iface, ok := w.Key.Interface()
	v4 := strings.HasPrefix(string(s.group), "net.ipv4.")
	switch {
	case w.Key == "net.ipv4.ip_forward" && v4:
		iface = "all"
	case !ok || w.Key.WithInterface("*") != s.group:
		return
	}
	v, err := parseInts(w.Value, 1)
	if err != nil {
		return
	}
	value := forwardValue{formatInts(v), w}
	before := s.present(iface)
	s.now[iface], s.own[iface] = value, value
	if iface == "all" && (!v4 || before.value != value.value) {
		s.now = map[string]forwardValue{"all": value}
		s.rest = value
	}
}

// present is what an interface holds that existed all the time.
func (s *forwardState) present(iface string) forwardValue {
	if v, ok := s.now[iface]; ok {
		return v
	}
	return s.rest
}

// later is what an interface holds that appears after the files were applied:
// its own lines once more (udev), else the values of "default".
func (s *forwardState) later(iface string) forwardValue {
	if iface == "all" || iface == "default" {
		return s.present(iface)
	}
	if v, ok := s.own[iface]; ok {
		return v
	}
	return s.present("default")
}
