package sysctl

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// BootLoader says what applies sysctl files when the host starts.
type BootLoader string

// What can load the files at boot.
const (
	BootSystemd BootLoader = "systemd-sysctl"
	BootProcps  BootLoader = "procps"  // an init script that runs `sysctl --system`
	BootNone    BootLoader = "none"    // the service is masked, or there is none
	BootUnknown BootLoader = "unknown" // another init system, or the capture is too small
)

// Boot says how settings come back after a reboot, as far as files tell.
type Boot struct {
	Loader BootLoader `json:"loader"`
	Why    string     `json:"why"` // the file that decided
	// Modules are those that modules-load.d and /etc/modules load before the
	// sysctl files are applied, with the line that says so.
	Modules map[string]Place `json:"modules"`
	// Systemd is systemd's version as the name of its library tells it
	// (libsystemd-shared-252.so), 0 where it does not.
	Systemd int `json:"systemd,omitempty"`
	// PerInterface: udev runs systemd-sysctl for every new network interface.
	PerInterface Fact `json:"per_interface"`
	// HashSize: a modprobe.d line sets nf_conntrack's hashsize.
	HashSize *Place `json:"hash_size,omitempty"`
	// Late are lines for keys whose module is not loaded before the files are
	// applied: they may be lost at boot.
	Late []LateLine `json:"late,omitempty"`
	// Overrides are programs that set keys after the files have been applied.
	Overrides []Override `json:"overrides"`
	Gaps      []Gap      `json:"gaps,omitempty"`
}

// Place is a line of a file; Line 0 means the file as a whole.
type Place struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"`
}

// String is "file:line".
func (p Place) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// LateLine is an assignment to a key that does not exist when the files are applied.
type LateLine struct {
	Key    Key    `json:"key"`
	Value  string `json:"value"`
	Module string `json:"module"`
	Place
}

// Paths that say who starts the files. Every one is looked up by CaptureFiles.
var (
	systemdPrograms = []string{"/usr/lib/systemd/systemd-sysctl", "/lib/systemd/systemd-sysctl"}
	systemdUnitDirs = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}
	initPrograms    = []string{"/sbin/init", "/usr/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/sbin/openrc", "/usr/bin/runit", "/sbin/openrc-init"}
	initScripts     = []string{"/etc/init.d/procps", "/etc/init.d/sysctl", "/etc/runlevels/boot/sysctl"}
	modulesFiles    = []string{"/etc/modules"}
	modulesDirs     = []string{"/etc/modules-load.d", "/run/modules-load.d", "/usr/local/lib/modules-load.d", "/usr/lib/modules-load.d", "/lib/modules-load.d"}
	modprobeDirs    = []string{"/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"}
	udevDirs        = []string{"/etc/udev/rules.d", "/run/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d"}
)

// captureBoot captures what DetectBoot and Lint look at. Files that may hold
// secrets are kept only in the lines that matter.
func captureBoot(c *capturer) {
	for _, p := range slices.Concat(systemdPrograms, initPrograms, initScripts) {
		c.walk(p)
	}
	for _, dir := range systemdUnitDirs {
		c.file(dir + "/systemd-sysctl.service")
		c.walk(dir + "/sysinit.target.wants/systemd-sysctl.service")
	}
	for _, dir := range systemdLibraries {
		c.dir(dir, func(string) bool { return false }) // names only
	}
	conf := func(name string) bool { return strings.HasSuffix(name, ".conf") }
	for _, p := range modulesFiles {
		c.file(p)
	}
	for _, dir := range modulesDirs {
		c.dir(dir, conf)
	}
	for _, dir := range modprobeDirs {
		c.dirLines(dir, conf, func(l string) bool { return strings.Contains(l, "nf_conntrack") })
	}
	for _, dir := range udevDirs {
		c.dirLines(dir, func(n string) bool { return strings.HasSuffix(n, ".rules") }, func(l string) bool { return strings.Contains(l, "sysctl") })
	}
	captureOverrides(c)
	captureLimits(c)
	captureFirewalls(c)
}

// lines captures a file and keeps only the lines that matter, so that a
// snapshot holds no secrets; the others become empty and keep their numbers.
func (c *capturer) lines(p string, keep func(line string) bool) {
	n := c.file(p)
	if n == nil || n.Kind != NodeFile {
		return
	}
	lines := strings.Split(string(n.Data), "\n")
	for i, l := range lines {
		if !keep(l) {
			lines[i] = ""
		}
	}
	n.Data = []byte(strings.Join(lines, "\n"))
}

func (c *capturer) dirLines(dir string, wants func(name string) bool, keep func(line string) bool) {
	resolved, n := c.walk(dir)
	if n == nil || n.Kind != NodeDir {
		return
	}
	if !n.Listed && n.Err == "" {
		c.list(resolved, n)
	}
	for _, name := range n.Entries {
		if wants(name) {
			c.lines(dir+"/"+name, keep)
		}
	}
}

// DetectBoot reads from the tree which loader runs at boot, which modules are
// loaded before it, and who overrides keys later. outcomes are those of the
// loaders (for late lines).
func DetectBoot(t *Tree, outcomes ...*Outcome) *Boot {
	b := &Boot{Modules: map[string]Place{}}
	b.Loader, b.Why = detectLoader(t, b)
	b.Systemd = systemdVersion(t)
	detectModules(t, b)
	b.PerInterface = Known(udevReapplies(t, "net"))
	detectHashSize(t, b)
	detectLate(b, t, outcomes)
	detectOverrides(t, b)
	slices.SortStableFunc(b.Overrides, func(a, c Override) int {
		return strings.Compare(string(a.Key)+a.Who, string(c.Key)+c.Who)
	})
	return b
}

// has says whether something stands at a path; a gap is noted and counts as no.
func (b *Boot) has(t *Tree, p string) bool {
	ok, err := t.Exists(p)
	if err != nil {
		b.Gaps = append(b.Gaps, Gap{What: "look for " + p, Why: unwrapPath(err)})
	}
	return ok
}

func detectLoader(t *Tree, b *Boot) (BootLoader, string) {
	systemd := ""
	for _, p := range systemdPrograms {
		if b.has(t, p) {
			systemd = p
			break
		}
	}
	if systemd != "" && systemdIsInit(t, b) {
		if unit, masked := unitMasked(t, b, "systemd-sysctl.service"); masked {
			return BootNone, unit + " masks systemd-sysctl.service"
		}
		return BootSystemd, systemd
	}
	for _, p := range initScripts {
		if b.has(t, p) {
			if p == "/etc/init.d/sysctl" || strings.HasPrefix(p, "/etc/runlevels") {
				// OpenRC and others read the directories in ways of their own.
				return BootUnknown, p + " applies the files in its own way"
			}
			return BootProcps, p
		}
	}
	if systemd == "" {
		return BootUnknown, "no loader was found"
	}
	return BootUnknown, "systemd is installed and is not the init program"
}

// systemdLibraries are where systemd's private library lies, by distribution.
var systemdLibraries = []string{"/usr/lib/systemd", "/lib/systemd", "/usr/lib64/systemd",
	"/usr/lib/x86_64-linux-gnu/systemd", "/usr/lib/aarch64-linux-gnu/systemd"}

// systemdVersion reads "libsystemd-shared-252.so", "libsystemd-shared-255.4-1.fc40.so".
func systemdVersion(t *Tree) int {
	for _, dir := range systemdLibraries {
		_, names, err := t.list(dir)
		if err != nil && len(names) == 0 {
			continue
		}
		for _, name := range names {
			rest, ok := strings.CutPrefix(name, "libsystemd-shared-")
			if !ok {
				continue
			}
			rest, _, _ = strings.Cut(rest, ".")
			rest, _, _ = strings.Cut(rest, "-")
			if n, err := strconv.Atoi(rest); err == nil {
				return n
			}
		}
	}
	return 0
}

// systemdIsInit: /sbin/init leads to systemd. Without any init program, as in a
// container image, systemd-sysctl would not run either.
func systemdIsInit(t *Tree, b *Boot) bool {
	for _, p := range []string{"/sbin/init", "/usr/sbin/init"} {
		resolved, _, err := t.resolve(p, true)
		if err != nil {
			if !isAbsent(err) {
				b.Gaps = append(b.Gaps, Gap{What: "look for " + p, Why: unwrapPath(err)})
			}
			continue
		}
		return path.Base(resolved) == "systemd"
	}
	return false
}

// unitMasked looks for a unit of that name that leads to the null device, in
// the order of systemd's unit directories.
func unitMasked(t *Tree, b *Boot, unit string) (string, bool) {
	for _, dir := range systemdUnitDirs {
		p := dir + "/" + unit
		_, n, err := t.resolve(p, false)
		if err != nil {
			continue
		}
		if n.Kind == NodeLink && n.Target == "/dev/null" {
			return p, true
		}
		return p, n.Kind == NodeFile && n.Data != nil && len(n.Data) == 0
	}
	return "", false
}

// unitEnabled looks for a link in any *.wants directory that was captured.
func unitEnabled(t *Tree, unit string) (string, bool) {
	for _, dir := range systemdUnitDirs {
		for _, target := range wantsTargets {
			p := dir + "/" + target + ".wants/" + unit
			if _, _, err := t.resolve(p, false); err == nil {
				return p, true
			}
		}
	}
	return "", false
}

var wantsTargets = []string{"multi-user.target", "sysinit.target", "basic.target", "network.target", "network-pre.target", "graphical.target", "default.target"}

func captureUnit(c *capturer, unit string) {
	for _, dir := range systemdUnitDirs {
		c.walk(dir + "/" + unit)
		for _, target := range wantsTargets {
			c.walk(dir + "/" + target + ".wants/" + unit)
		}
	}
}

// eachLine calls yield for the lines of a captured file that hold more than a
// comment.
func eachLine(t *Tree, p string, yield func(n int, line string)) {
	data, err := t.read(p)
	if err != nil && len(data) == 0 {
		return
	}
	for i, l := range strings.Split(string(data), "\n") {
		l = strings.TrimSpace(l)
		if l == "" || l[0] == '#' || l[0] == ';' {
			continue
		}
		yield(i+1, l)
	}
}

// confFiles lists the files that count in a set of drop-in directories: of
// equal names the first.
func confFiles(t *Tree, dirs []string, suffix string) []string {
	by := map[string]string{}
	var names []string
	for _, dir := range dirs {
		_, entries, err := t.list(dir)
		if err != nil && len(entries) == 0 {
			continue
		}
		for _, name := range entries {
			if !strings.HasSuffix(name, suffix) || strings.HasPrefix(name, ".") || by[name] != "" {
				continue
			}
			by[name] = dir + "/" + name
			names = append(names, name)
		}
	}
	slices.Sort(names)
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = by[n]
	}
	return out
}

func detectModules(t *Tree, b *Boot) {
	files := append(confFiles(t, modulesDirs, ".conf"), modulesFiles...)
	for _, p := range files {
		eachLine(t, p, func(n int, line string) {
			m := strings.ReplaceAll(strings.Fields(line)[0], "-", "_")
			if _, ok := b.Modules[m]; !ok {
				b.Modules[m] = Place{p, n}
			}
		})
	}
}

func detectHashSize(t *Tree, b *Boot) {
	for _, p := range confFiles(t, modprobeDirs, ".conf") {
		eachLine(t, p, func(n int, line string) {
			if strings.HasPrefix(line, "options") && strings.Contains(line, "nf_conntrack") && strings.Contains(line, "hashsize") {
				b.HashSize = &Place{p, n}
			}
		})
	}
}

// udevReapplies looks for a rule that runs systemd-sysctl for a subsystem.
func udevReapplies(t *Tree, subsystem string) bool {
	found := false
	for _, p := range confFiles(t, udevDirs, ".rules") {
		eachLine(t, p, func(_ int, line string) {
			if strings.Contains(line, "systemd-sysctl") && strings.Contains(line, `SUBSYSTEM=="`+subsystem+`"`) {
				found = true
			}
		})
	}
	return found
}

// udevLoads looks for a rule that runs sysctl when a module appears.
func udevLoads(t *Tree, module string) (Place, bool) {
	var at Place
	for _, p := range confFiles(t, udevDirs, ".rules") {
		eachLine(t, p, func(n int, line string) {
			if strings.Contains(line, "sysctl") && strings.Contains(line, `SUBSYSTEM=="module"`) && strings.Contains(line, module) {
				at = Place{p, n}
			}
		})
	}
	return at, at.File != ""
}

// moduleOf names the module without which a key does not exist.
func moduleOf(k Key) string {
	if e, ok := Find(k); ok && e.Module != "" {
		return e.Module
	}
	s := string(k)
	switch {
	case strings.HasPrefix(s, "net.netfilter.nf_conntrack_"), s == "net.nf_conntrack_max":
		return "nf_conntrack"
	case strings.HasPrefix(s, "net.bridge."):
		return "br_netfilter"
	case strings.HasPrefix(s, "net.ipv4.vs."):
		return "ip_vs"
	}
	return ""
}

// detectLate finds lines for keys of modules that nothing loads in time.
func detectLate(b *Boot, t *Tree, outcomes []*Outcome) {
	if b.Loader != BootSystemd && b.Loader != BootProcps {
		return
	}
	for _, o := range outcomes {
		if string(o.Loader) != string(b.Loader) {
			continue
		}
		for _, a := range o.Lines {
			if a.Dead != "" || a.Exclude {
				continue
			}
			k := KeyFromPath(cleanPath(a.Path))
			m := moduleOf(k)
			if m == "" {
				continue
			}
			if _, loaded := b.Modules[m]; loaded {
				continue
			}
			if _, rule := udevLoads(t, m); rule {
				continue
			}
			b.Late = append(b.Late, LateLine{Key: k, Value: a.Value, Module: m, Place: Place{a.File, a.Line}})
		}
	}
}

// judgeLateModules reports lines that the boot applies before their module is there.
func judgeLateModules(_ Key, f *Facts) []Judgement {
	if f.Boot == nil {
		return []Judgement{{Verdict: Unknown, Why: "how the files are applied at boot was not read", Missing: []string{"sysctl.d and modules-load.d"}}}
	}
	byModule := map[string][]LateLine{}
	var modules []string
	for _, l := range f.Boot.Late {
		if byModule[l.Module] == nil {
			modules = append(modules, l.Module)
		}
		byModule[l.Module] = append(byModule[l.Module], l)
	}
	slices.Sort(modules)
	var out []Judgement
	for _, m := range modules {
		var ev []Evidence
		for _, l := range byModule[m] {
			ev = append(ev, Evidence{l.Place.String(), string(l.Key) + " = " + l.Value})
		}
		out = append(out, Judgement{
			Verdict: Wrong, Finding: "sysctl.not-applied-at-boot", Severity: Warning, Subject: m, Evidence: ev,
			Why: "these keys exist only once module " + m + " is loaded, and nothing loads it before " + string(f.Boot.Loader) +
				" applies the files: unless it is built into the kernel or comes with the initial ramdisk, the lines are lost at boot",
			Remedy: "name the module in a file below /etc/modules-load.d, and look at the values after the next reboot",
		})
	}
	return out
}
