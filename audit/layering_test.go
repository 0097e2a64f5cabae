package audit_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/hostaudit/hostaudit"

// room is what a package may import.
type room struct {
	// knows are the packages of the project, relative to the module.
	knows []string
	// uses are the libraries, each with the packages below it.
	uses []string
	// pure packages read nothing and write nothing: of the standard library they
	// import only what pureStd names.
	pure bool
	// tests are further packages of the project for the tests of this one.
	tests []string
}

// rooms is the table of ARCHITECTURE.md. A package that is not in it fails.
//
// firewall, listeners and sysctl do not know each other; the join of a socket, a
// route and a ruleset is audit/reach and nowhere else. Nobody knows cmd.
var rooms = map[string]room{
	"firewall":           {pure: true},
	"firewall/nft":       {knows: []string{"firewall", "firewall/xtables"}, uses: netlinkLibraries, tests: readers},
	"firewall/xtables":   {knows: []string{"firewall"}, uses: netlinkLibraries, tests: readers},
	"firewall/ipset":     {knows: []string{"firewall"}, uses: netlinkLibraries, tests: readers},
	"firewall/owner":     {knows: []string{"firewall"}, uses: []string{"github.com/coreos/go-iptables", "golang.org/x/sys", "gopkg.in/yaml.v3", "go.yaml.in/yaml/v3"}},
	"listeners":          {knows: []string{"listeners/sockdiag"}, uses: append([]string{"github.com/cilium/ebpf", "github.com/prometheus/procfs"}, netlinkLibraries...)},
	"listeners/sockdiag": {uses: netlinkLibraries},
	"listeners/load":     {uses: []string{"golang.org/x/sys"}}, // the command that fills a namespace for the benchmarks
	"sysctl":             {uses: []string{"golang.org/x/sys"}},

	"audit/route":  {knows: []string{"firewall"}, uses: netlinkLibraries},
	"audit/reach":  {knows: []string{"audit/route", "firewall", "listeners"}, pure: true, tests: append([]string{"audit", "audit/collect"}, readers...)},
	"audit":        {knows: []string{"audit/reach", "audit/route", "firewall", "listeners", "sysctl"}, pure: true, tests: []string{"audit/collect", "audit/checks"}},
	"audit/checks": {knows: append([]string{"audit", "audit/reach"}, models...), uses: []string{"golang.org/x/sys"}, pure: true, tests: []string{"audit/collect", "audit/route"}},
	"audit/diagnose": {
		knows: append([]string{"audit", "audit/reach", "audit/diagnose/webserver"}, models...),
		uses:  append([]string{"github.com/coreos/go-systemd", "github.com/godbus/dbus"}, netlinkLibraries...),
		tests: []string{"audit/collect", "audit/report"},
	},
	"audit/diagnose/webserver": {uses: []string{"golang.org/x/sys"}},
	"audit/report": {
		knows: append([]string{"audit", "audit/reach", "audit/diagnose", "audit/remedy"}, models...), pure: true,
		uses: []string{
			"github.com/jedib0t/go-pretty", "github.com/mattn/go-runewidth", "github.com/owenrumney/go-sarif",
			"github.com/prometheus/client_model", "github.com/prometheus/common",
		},
		tests: []string{"audit/checks", "audit/collect"},
	},
	"audit/collect": {
		knows: append(append([]string{"audit", "audit/reach", "audit/route", "firewall/owner", "listeners/sockdiag"}, models...), readers...),
		uses:  append([]string{"github.com/cilium/ebpf"}, netlinkLibraries...),
	},
	"audit/remedy": {
		knows: append([]string{"audit", "audit/reach", "firewall/owner"}, models...),
		uses:  append([]string{"github.com/coreos/go-iptables", "github.com/google/nftables"}, netlinkLibraries...),
		tests: append([]string{"audit/collect", "audit/checks"}, readers...),
	},
	// The laboratory knows nothing of the project, and only tests import it.
	"audit/lab": {uses: netlinkLibraries},

	// What the packages are made with.
	"packaging":        {},
	"packaging/bench":  {knows: []string{"firewall", "firewall/nft", "firewall/xtables", "listeners", "listeners/sockdiag"}, uses: []string{"golang.org/x/sys"}},
	"packaging/manual": {knows: []string{"audit"}, pure: true, uses: []string{"github.com/spf13/cobra", "github.com/spf13/pflag"}},
	"packaging/sbom":   {},

	"cmd/hostaudit":          {knows: everything, uses: append([]string{"golang.org/x/sync"}, cmdLibraries...)},
	"cmd/hostaudit/hugepage": {},
	"cmd/hostaudit/config":   {knows: append([]string{"audit", "audit/report"}, models...), uses: cmdLibraries},
}

var (
	models  = []string{"firewall", "listeners", "sysctl"}
	readers = []string{"firewall/nft", "firewall/xtables", "firewall/ipset"}

	netlinkLibraries = []string{
		"github.com/mdlayher/netlink", "github.com/mdlayher/socket", "github.com/vishvananda/netlink", "github.com/vishvananda/netns", "golang.org/x/sys",
	}
	// viper lives in cmd alone.
	cmdLibraries = []string{
		"github.com/spf13/cobra", "github.com/spf13/pflag", "github.com/spf13/viper", "go.yaml.in/yaml/v3", "golang.org/x/sys", "golang.org/x/term",
	}
	everything = []string{
		"firewall", "firewall/nft", "firewall/xtables", "firewall/ipset", "firewall/owner", "listeners", "sysctl", "audit", "audit/checks", "audit/collect",
		"audit/diagnose", "audit/reach", "audit/remedy", "audit/report", "audit/route", "cmd/hostaudit/config", "cmd/hostaudit/hugepage",
		"packaging/manual",
	}
	testLibraries = []string{
		"github.com/google/go-cmp", "github.com/rogpeppe/go-internal", "pgregory.net/rapid", "golang.org/x/sys", "github.com/vishvananda/netlink",
		"github.com/vishvananda/netns", "github.com/cilium/ebpf", "go.yaml.in/yaml/v3", "golang.org/x/net",
		"github.com/xeipuuv/gojsonschema",
	}

	// pureStd has no package that reaches a file, a socket, a process or the log.
	pureStd = []string{
		"bytes", "cmp", "encoding", "encoding/base64", "encoding/binary", "encoding/hex", "encoding/json", "encoding/xml", "errors", "fmt", "hash/fnv",
		"hash/maphash", "html", "html/template", "io", "iter", "maps", "math", "math/big", "math/bits", "net/netip", "path", "regexp", "slices", "sort", "strconv",
		"strings", "sync", "text/tabwriter", "text/template", "time", "unicode", "unicode/utf16", "unicode/utf8", "unique", "embed", "crypto/sha256", "context",
		"container/heap", "container/list", "net/url", "bufio", "sync/atomic",
	}
)

// imported is one import of one file.
type imported struct {
	dir, file, path string
	test            bool
}

// TestImports holds every import of the module against the table. The files are
// parsed here and not by the go command, so that a cached result is one of the
// files as they are.
func TestImports(t *testing.T) {
	imports, dirs := parseModule(t)
	for _, must := range []string{"firewall", "listeners", "sysctl", "audit", "audit/reach", "audit/lab"} {
		if !slices.Contains(dirs, must) {
			t.Errorf("found no Go file in %s: this test looks in the wrong place", must)
		}
	}
	for _, dir := range dirs {
		if _, ok := rooms[dir]; !ok {
			t.Errorf("package %s is not in the table of allowed imports (audit/layering_test.go): say there what it may know", dir)
		}
	}
	for _, i := range imports {
		if r, ok := rooms[i.dir]; ok {
			if why := r.forbids(i); why != "" {
				t.Errorf("%s imports %s: %s", i.file, i.path, why)
			}
		}
	}
}

// forbids says why a package may not import something, or "".
func (r room) forbids(i imported) string {
	if project, ok := strings.CutPrefix(i.path, module+"/"); ok {
		switch {
		case slices.Contains(r.knows, project):
		case i.test && (project == i.dir || project == "audit/lab" || slices.Contains(r.tests, project)):
		case project == "audit/lab":
			return "only tests use the laboratory"
		default:
			return i.dir + " knows only " + strings.Join(r.knows, ", ")
		}
		return ""
	}
	if first, _, _ := strings.Cut(i.path, "/"); strings.Contains(first, ".") {
		within := func(library string) bool {
			return i.path == library || strings.HasPrefix(i.path, library+"/")
		}
		if !slices.ContainsFunc(r.uses, within) && (!i.test || !slices.ContainsFunc(testLibraries, within)) {
			return "not a library of " + i.dir
		}
		return ""
	}
	if i.path == "C" {
		return "the program is built without cgo"
	}
	if r.pure && !i.test && !slices.Contains(pureStd, i.path) {
		return i.dir + " is pure: it reads and writes nothing"
	}
	return ""
}

// TestTableIsSound: the table itself names only what it lists, in no circle.
func TestTableIsSound(t *testing.T) {
	state := map[string]int{} // 1: on the way, 2: done
	var visit func(string, []string)
	visit = func(name string, way []string) {
		way = append(slices.Clone(way), name)
		r, ok := rooms[name]
		switch {
		case !ok:
			t.Errorf("%s: not in the table", strings.Join(way, " knows "))
			return
		case state[name] == 1:
			t.Errorf("circle: %s", strings.Join(way, " knows "))
			return
		case state[name] == 2:
			return
		}
		state[name] = 1
		for _, next := range r.knows {
			visit(next, way)
		}
		state[name] = 2
	}
	for name := range rooms {
		visit(name, nil)
	}
	for _, model := range models {
		for _, other := range rooms[model].knows {
			if slices.Contains(models, other) {
				t.Errorf("%s knows %s", model, other)
			}
		}
	}
}

// TestForbids is the guard's own negative control.
func TestForbids(t *testing.T) {
	for _, c := range []struct {
		dir, path string
		test      bool
		allowed   bool
	}{
		{"firewall", module + "/listeners", false, false},
		{"firewall", "os", false, false},
		{"firewall", "os", true, true},
		{"firewall", "github.com/vishvananda/netlink", false, false},
		{"firewall", "net/netip", false, true},
		{"firewall/nft", module + "/firewall/xtables", false, true},
		{"firewall/xtables", module + "/firewall/nft", false, false},
		{"audit/reach", module + "/audit/checks", false, false},
		{"audit/reach", module + "/audit/checks", true, false},
		{"audit/reach", module + "/audit/lab", false, false},
		{"audit/reach", module + "/audit/lab", true, true},
		{"audit", "log/slog", false, false},
		{"audit/lab", module + "/firewall", false, false},
		{"audit/lab", module + "/firewall", true, false},
		{"sysctl", module + "/audit", false, false},
		{"listeners", "github.com/spf13/viper", false, false},
		{"listeners", "github.com/cilium/ebpf/link", false, true},
		{"listeners", "github.com/cilium/ebpfother", false, false},
		{"cmd/hostaudit", "C", false, false},
	} {
		why := rooms[c.dir].forbids(imported{dir: c.dir, path: c.path, test: c.test})
		if (why == "") != c.allowed {
			t.Errorf("%s imports %s (test %v): %q, want allowed %v", c.dir, c.path, c.test, why, c.allowed)
		}
	}
}

// TestTopLevel: no other folder stands beside the rooms.
func TestTopLevel(t *testing.T) {
	allowed := []string{"cmd", "audit", "sysctl", "firewall", "listeners", "packaging", "dist"} // dist is built, and ignored by git
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && !slices.Contains(allowed, e.Name()) {
			t.Errorf("the top level has a folder %s; it holds only %s", e.Name(), strings.Join(allowed, " "))
		}
	}
}

// parseModule returns every import of every Go file, and the folders with Go
// files, relative to the module.
func parseModule(t *testing.T) (imports []imported, dirs []string) {
	t.Helper()
	root := ".."
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			base := entry.Name()
			if name != root && (base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		relative, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		relative = filepath.ToSlash(relative)
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir := path.Dir(relative)
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
		for _, spec := range file.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imports = append(imports, imported{dir: dir, file: relative, path: to, test: strings.HasSuffix(relative, "_test.go")})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return imports, dirs
}
