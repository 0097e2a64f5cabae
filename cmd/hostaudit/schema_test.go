package main

import (
	"bytes"
	"encoding"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/audit/remedy"
	"github.com/hostaudit/hostaudit/audit/report"
)

const (
	schemaDir = "../../packaging/schema"
	schemaURL = "https://raw.githubusercontent.com/hostaudit/hostaudit/main/packaging/schema/"
)

// published are the schemas by file, and the types that the program encodes.
func published() map[string]form {
	return map[string]form{
		"scan.v1.json":         {"What 'hostaudit scan --format json' prints.", audit.ScanSchema, reflect.TypeFor[audit.Report]()},
		"ports.v1.json":        {"What 'hostaudit ports --format json' prints.", audit.PortsSchema, reflect.TypeFor[audit.PortUse]()},
		"reach-answer.v1.json": {"What 'hostaudit reach --format json' prints, and each line of 'hostaudit reach --batch'.", "", reflect.TypeFor[reach.Answer]()},
		"reach-query.v1.json":  {"One line that 'hostaudit reach --batch' reads.", "", reflect.TypeFor[batchQuery]()},
		"diagnose.v1.json":     {"What 'hostaudit diagnose --format json' prints.", diagnose.Schema, reflect.TypeFor[diagnose.Report]()},
		"watch.v1.json":        {"What 'hostaudit watch --format json' prints.", diagnose.WatchSchema, reflect.TypeFor[diagnose.WatchReport]()},
		"plan.v1.json":         {"What 'hostaudit fix --format json' prints.", remedy.PlanSchema, reflect.TypeFor[remedy.Plan]()},
		"history.v1.json":      {"What 'hostaudit history --format json' prints.", "hostaudit/history/v1", reflect.TypeFor[changeList]()},
		"diff.v1.json":         {"What 'hostaudit diff --format json' and 'hostaudit scan --since FILE --format json' print.", report.DiffSchema, reflect.TypeFor[report.Diff]()},
		"checks.v1.json":       {"What 'hostaudit checks --format json' prints.", "", reflect.TypeFor[[]report.CheckRow]()},
	}
}

type form struct {
	what, name string
	of         reflect.Type
}

type changeList struct {
	Schema  string            `json:"schema"`
	Changes []*remedy.Journal `json:"changes"`
}

// batchQuery is a query with its name.
type batchQuery struct {
	ID string `json:"id,omitempty"`
	reach.QueryJSON
}

// object is a JSON object in the making.
type object = map[string]any

// source is what the Go source says about its types: comments and constants.
type source struct {
	docs  map[string]string   // package.Type and package.Type.Field
	enums map[string][]string // package.Type
}

// readSource parses the packages whose types are encoded.
func readSource(t *testing.T) source {
	t.Helper()
	s := source{map[string]string{}, map[string][]string{}}
	for _, dir := range []string{"audit", "audit/reach", "audit/diagnose", "audit/remedy", "audit/report", "sysctl", "listeners", "firewall", "firewall/owner"} {
		files, err := filepath.Glob("../../" + dir + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v %v", dir, files, err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if g, ok := d.(*ast.GenDecl); ok {
					s.declared(f.Name.Name+".", g)
				}
			}
		}
	}
	return s
}

func (s source) declared(prefix string, g *ast.GenDecl) {
	for _, spec := range g.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			name := prefix + spec.Name.Name
			s.docs[name] = words(spec.Doc, g.Doc)
			st, ok := spec.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, f := range st.Fields.List {
				for _, n := range f.Names {
					s.docs[name+"."+n.Name] = words(f.Doc, f.Comment)
				}
			}
		case *ast.ValueSpec:
			of, ok := spec.Type.(*ast.Ident)
			if !ok || len(spec.Values) != 1 {
				continue
			}
			if v, ok := spec.Values[0].(*ast.BasicLit); ok && v.Kind == token.STRING {
				if word, err := strconv.Unquote(v.Value); err == nil {
					s.enums[prefix+of.Name] = append(s.enums[prefix+of.Name], word)
				}
			}
		}
	}
}

func words(groups ...*ast.CommentGroup) string {
	var all []string
	for _, g := range groups {
		all = append(all, strings.Fields(g.Text())...)
	}
	return strings.Join(all, " ")
}

// schema builds one document.
type schema struct {
	source
	defs object
	used map[string]bool // of schemaWords
}

// open are types whose words are not a closed list: keys of the kernel, ids that
// grow with the catalogue.
var open = []string{"sysctl.Key", "audit.Text", "listeners.HostText", "diagnose.ID"}

func (s *schema) of(t reflect.Type) object {
	name := t.String()
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t.Kind() == reflect.Pointer:
		return object{"anyOf": []any{s.of(t.Elem()), object{"type": "null"}}}
	case t.Kind() == reflect.Struct && !t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		if _, ok := s.defs[name]; !ok {
			s.defs[name] = nil // on the way
			s.defs[name] = s.structOf(t)
		}
		return object{"$ref": "#/definitions/" + name}
	case t.Kind() == reflect.String && len(s.enums[name]) > 0 && !slices.Contains(open, name):
		return object{"type": "string", "enum": s.enums[name]}
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()), t.Kind() == reflect.String:
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": []string{"string", "null"}, "contentEncoding": "base64"}
		}
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Uint16:
		return object{"type": "integer", "minimum": 0, "maximum": 65535}
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	}
	panic("no schema for " + name)
}

func (s *schema) structOf(t reflect.Type) object {
	out := object{"type": "object"}
	if d := s.docs[t.String()]; d != "" {
		out["description"] = d
	}
	properties, required := object{}, []string{}
	var add func(reflect.Type)
	add = func(t reflect.Type) {
		for f := range t.Fields() {
			tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			optional := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
			switch {
			case tag == "-" || !f.IsExported() && !f.Anonymous:
				continue
			case f.Anonymous && tag == "":
				add(f.Type)
				continue
			case tag == "":
				tag = f.Name
			}
			of := f.Type
			if optional && of.Kind() == reflect.Pointer {
				of = of.Elem()
			}
			property := s.of(of)
			d := s.docs[t.String()+"."+f.Name]
			if better, ok := schemaWords[t.String()+"."+tag]; ok {
				d = better
				s.used[t.String()+"."+tag] = true
			}
			if d != "" {
				if ref, ok := property["$ref"]; ok { // beside $ref nothing counts
					property = object{"allOf": []any{object{"$ref": ref}}}
				}
				property["description"] = d
			}
			properties[tag] = property
			if !optional {
				required = append(required, tag)
			}
		}
	}
	add(t)
	out["properties"], out["required"] = properties, required
	return out
}

// document makes the whole schema. Consumers meet reports of later versions, so
// further keys are allowed; closed is for tests, and allows none.
func (p form) document(t *testing.T, src source, file string, used map[string]bool, closed bool) []byte {
	t.Helper()
	s := &schema{src, object{}, used}
	doc := object{"$schema": "http://json-schema.org/draft-07/schema#", "$id": schemaURL + file, "title": "hostaudit " + strings.TrimSuffix(file, ".json")}
	for k, v := range s.of(p.of) {
		if k == "$ref" {
			k, v = "allOf", []any{object{"$ref": v}}
		}
		doc[k] = v
	}
	doc["description"] = p.what
	if root, ok := s.defs[p.of.String()].(object); ok && p.name != "" {
		root["properties"].(object)["schema"] = object{"const": p.name}
	}
	if p.of == reflect.TypeFor[reach.Answer]() { // a line that is no query
		doc["anyOf"] = append(doc["allOf"].([]any), s.of(reflect.TypeFor[failedLine]()))
		delete(doc, "allOf")
	}
	if closed {
		for _, d := range s.defs {
			d.(object)["additionalProperties"] = false
		}
	}
	doc["definitions"] = s.defs
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(doc); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestSchemasAreCurrent holds the published schemas to the types that are encoded:
// every key, every list of words. -update rewrites them.
func TestSchemasAreCurrent(t *testing.T) {
	src, used := readSource(t), map[string]bool{}
	all := published()
	for file, p := range all {
		want := p.document(t, src, file, used, false)
		if *update {
			if err := os.WriteFile(filepath.Join(schemaDir, file), want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(filepath.Join(schemaDir, file)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("packaging/schema/%s is not what the program prints (%v); rewrite it: go test ./cmd/hostaudit -run TestSchemasAreCurrent -update", file, err)
		}
	}
	for key := range schemaWords {
		if !used[key] {
			t.Errorf("schemaWords describes %s, which no schema has", key)
		}
	}
	there, err := filepath.Glob(schemaDir + "/*.json")
	if err != nil || len(there) != len(all) {
		t.Errorf("packaging/schema holds %v (%v), and %d are made", there, err, len(all))
	}
}
