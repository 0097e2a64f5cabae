package remedy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/sysctl"
)

// sysctls plans the values that entries of the catalogue recommend for findings.
func (p *planner) sysctls() error {
	var changes []sysctl.Change
	finding := map[sysctl.Key]audit.Finding{}
	if p.Snapshot.Sysctls == nil {
		return nil // the checks have said so
	}
	files := provenance(p.Snapshot)
	for _, e := range sysctl.Catalogue() {
		if e.Rule == nil || !e.Setting() {
			continue
		}
		for _, k := range p.Snapshot.Instances(e) {
			for _, j := range e.Judge(k, p.pass.Facts) {
				f, ok := p.findingOf(j, k)
				if !ok || j.Recommend == "" {
					continue
				}
				live, there := p.Snapshot.Sysctls.Get(k)
				if !there {
					continue
				}
				if k.Routes() {
					p.manual(f, "it changes how packets are routed, and its effect on every listener is not worked out", fmt.Sprintf("sysctl -w %s=%s, with a second login open", k, j.Recommend))
					continue
				}
				at := slices.IndexFunc(changes, func(c sysctl.Change) bool { return c.Key == k })
				if at >= 0 {
					live = changes[at].After // several destinations want the same key
				}
				c, needed, err := sysctl.PlanChange(k, live, withFiles(files, e, k, j.Recommend), reason(j), exact(e))
				switch {
				case err != nil:
					p.manual(f, err.Error(), "")
				case at >= 0 && needed:
					changes[at].After = c.After
				case at < 0 && needed:
					changes = append(changes, c)
					finding[k] = f
				}
			}
		}
	}
	if len(changes) == 0 {
		return nil
	}
	return p.sysctlSteps(changes, finding)
}

// withFiles is the wanted value and what the files set already, which the drop-in
// would win over: the union of lists, the larger of numbers.
func withFiles(files *sysctl.Host, e *sysctl.Entry, k sysctl.Key, want string) string {
	if files == nil || exact(e) {
		return want
	}
	for _, w := range files.Provenance(k).Persisted {
		if w.File == sysctl.DropInPath {
			continue
		}
		// What stands there may be no value: then it is no loss.
		if c, _, err := sysctl.PlanChange(k, w.Value, want, "", false); err == nil {
			want = c.After
		}
	}
	return want
}

// findingOf is the finding of the report that a judgement made.
func (p *planner) findingOf(j sysctl.Judgement, k sysctl.Key) (audit.Finding, bool) {
	subject := j.Subject
	if subject == "" {
		subject = string(k)
	}
	for _, f := range p.report.Counting() {
		if slices.Contains(saidAs(j.Finding), f.ID) && f.Subject == subject && p.wanted(f.ID) {
			return f, true
		}
	}
	return audit.Finding{}, false
}

// saidAs are the ids under which the report says what the catalogue found.
func saidAs(id string) []string {
	if id == "sysctl.somaxconn-bounds-queue" {
		return []string{"listener.queue-full", "listener.queue-nearly-full"}
	}
	return []string{id}
}

// exact: switches and modes have no order.
func exact(e *sysctl.Entry) bool {
	if e.Key == "net.ipv4.ip_local_port_range" || e.Shape == sysctl.ShapePorts || e.Shape == sysctl.ShapeWords {
		return false
	}
	return !e.LargerIsFine
}

func reason(j sysctl.Judgement) string {
	first, _, _ := strings.Cut(j.Why, "\n")
	if j.Finding != "" {
		first = j.Finding + ": " + first
	}
	return shorten(first, 300)
}

func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n] + "…"
}

// sysctlSteps makes the live steps, the drop-in and the list of modules, and says
// what the next boot makes of them.
func (p *planner) sysctlSteps(changes []sysctl.Change, finding map[sysctl.Key]audit.Finding) error {
	for i := range changes {
		p.plan.Steps = append(p.plan.Steps, Step{Phase: Live, Sysctl: &changes[i]})
	}
	old, has := p.Files[sysctl.DropInPath]
	dropIn, err := sysctl.ParseDropIn(old)
	if err != nil {
		return refused(fmt.Errorf("%s: %w: move its lines elsewhere first", sysctl.DropInPath, err))
	}
	after := dropIn.Set(changes...)
	data := after.Render()
	if !has || !bytes.Equal(old, data) {
		p.plan.Steps = append(p.plan.Steps, Step{Phase: Persist, File: &FileChange{Path: sysctl.DropInPath, Before: old, HasBefore: has, After: data, HasAfter: true}})
	}
	var tree *sysctl.Tree
	if p.Snapshot.Files != nil {
		tree = p.Snapshot.Files.With(sysctl.DropInPath, data)
	}
	if modules := p.modules(after); modules != nil {
		old, has := p.Files[sysctl.ModulesDropInPath]
		if has && !strings.HasPrefix(string(old), "# Written by hostaudit") {
			return refused(fmt.Errorf("%s: %w", sysctl.ModulesDropInPath, sysctl.ErrForeign))
		}
		if !bytes.Equal(old, modules) {
			p.plan.Steps = append(p.plan.Steps, Step{Phase: Persist, File: &FileChange{Path: sysctl.ModulesDropInPath, Before: old, HasBefore: has, After: modules, HasAfter: true}})
		}
		if tree != nil {
			tree = tree.With(sysctl.ModulesDropInPath, modules)
		}
	}
	host := p.rebooted(tree, changes)
	for i := range changes {
		c := &changes[i]
		f := finding[c.Key]
		boot, lasts := "the files could not be read: what the next boot makes of it is not known", false
		if host != nil {
			boot, lasts = bootWords(host, c)
		}
		p.plan.Changes = append(p.plan.Changes, Change{
			Finding: f.ID, about: f.Subject, Kind: "sysctl", Subject: string(c.Key), Before: strings.Join(strings.Fields(c.Before), " "), After: c.After, Persistent: lasts, Boot: boot,
			Command: fmt.Sprintf("sysctl -w '%s=%s'; and %s", c.Key, c.After, sysctl.DropInPath), Owner: "the kernel",
			Diff: diff(sysctl.DropInPath, lineOf(string(old), c.Key), lineOf(string(data), c.Key)),
		})
	}
	return nil
}

// lineOf is the line of a drop-in that sets a key, with its reason.
func lineOf(text string, k sysctl.Key) string {
	lines := strings.SplitAfter(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, string(k)+" = ") {
			if i > 0 && strings.HasPrefix(lines[i-1], "# ") {
				return lines[i-1] + l
			}
			return l
		}
	}
	return ""
}

// modules is the list of modules to load before the files are applied, nil where
// none is needed.
func (p *planner) modules(d *sysctl.DropIn) []byte {
	names := d.Modules()
	if host := provenance(p.Snapshot); host != nil && host.Boot != nil {
		names = slices.DeleteFunc(names, func(m string) bool {
			place, there := host.Boot.Modules[m]
			return there && place.File != sysctl.ModulesDropInPath
		})
	}
	return sysctl.RenderModules(names)
}

// rebooted simulates both loaders on the files as they will be.
func (p *planner) rebooted(tree *sysctl.Tree, changes []sysctl.Change) *sysctl.Host {
	if tree == nil {
		return nil
	}
	after := *p.Snapshot
	after.Files = tree
	after.Sysctls = sysctl.Values{}
	for k, v := range p.Snapshot.Sysctls {
		after.Sysctls[k] = v
	}
	for _, c := range changes {
		v := after.Sysctls[c.Key]
		v.Text = c.After
		after.Sysctls[c.Key] = v
	}
	return provenance(&after)
}

// provenance simulates both loaders on the files of a reading, nil without them.
func provenance(s *audit.Snapshot) *sysctl.Host {
	if s.Files == nil || s.Sysctls == nil {
		return nil
	}
	kernel, err := sysctl.ParseVersion(s.Meta.Kernel)
	if err != nil {
		kernel = sysctl.Version{}
	}
	keys := s.Keys
	if keys == nil {
		var present []sysctl.Key
		for k, v := range s.Sysctls {
			if v.State != sysctl.Absent {
				present = append(present, k)
			}
		}
		slices.Sort(present)
		keys = sysctl.NewKeySet(present)
	}
	return sysctl.NewHost(s.Files, keys, s.Sysctls, kernel)
}

// bootWords says what the next boot brings, and what `sysctl --system` would do.
func bootWords(h *sysctl.Host, c *sysctl.Change) (string, bool) {
	prov := h.Provenance(c.Key)
	e, _ := sysctl.Find(c.Key)
	lasts := prov.Reboot.Known && e.Shape.Equal(prov.Reboot.Value, c.After)
	var words string
	switch {
	case lasts:
		words = "after a reboot: " + c.After
		if prov.Reboot.By != nil {
			words += fmt.Sprintf(" (%s:%d)", prov.Reboot.By.File, prov.Reboot.By.Line)
		}
	case prov.Reboot.Known:
		words = fmt.Sprintf("after a reboot it is %s, not %s: %s", prov.Reboot.Value, c.After, prov.Reboot.Why)
	default:
		words = "what a reboot brings cannot be told: " + prov.Reboot.Why
	}
	for _, w := range prov.Persisted {
		if w.Loader == sysctl.LoaderProcps && w.File != sysctl.DropInPath && !e.Shape.Equal(w.Value, c.After) {
			words += fmt.Sprintf("; sysctl --system, run by hand, sets %s (%s:%d)", w.Value, w.File, w.Line)
		}
	}
	return words, lasts
}

var errNoRules = errors.New("the rules were not read")
