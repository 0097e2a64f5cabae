package audit

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// notFilled are facts that rules look at and facts.go does not fill, with the
// reason.
var notFilled = map[string]string{
	"Facts.Profile": "the operator's choice, given to facts()",
}

// TestFactsAreFilled: a rule of the sysctl catalogue that looks at a fact which
// nothing ever fills is silent for ever, and looks healthy. So every field of the
// facts that package sysctl reads must be filled in facts.go.
func TestFactsAreFilled(t *testing.T) {
	read := factsRead(t)
	filled := factsFilled(t)
	if len(read) < 40 || len(filled) < 40 {
		t.Fatalf("control: %d facts are read and %d filled: this test looks in the wrong place", len(read), len(filled))
	}
	for _, f := range read {
		if notFilled[f] == "" && !slices.Contains(filled, f) {
			t.Errorf("%s decides something in package sysctl, and audit/facts.go never fills it", f)
		}
	}
	for f := range notFilled {
		if !slices.Contains(read, f) {
			t.Errorf("%s is excused, and nothing reads it", f)
		}
	}
}

// factTypes are the structs that facts consist of. Boot and Profile are made by
// package sysctl itself.
var factTypes = []string{"Facts", "Listener", "Destination", "SocketTotals", "ConntrackState", "FileTable", "Process", "Roles"}

// factsRead are the fields that the rules read, as "Roles.VRRP".
func factsRead(t *testing.T) (out []string) {
	t.Helper()
	fset, files := parseDir(t, "../sysctl")
	info := types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}}
	conf := types.Config{Importer: importer.ForCompiler(fset, "source", nil), Error: func(error) {}}
	if _, err := conf.Check("sysctl", fset, files, &info); err != nil {
		t.Logf("type check: %v", err) // what it could not resolve is no fact
	}
	for _, f := range files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "roles" {
				continue // merges all of them with the profile's
			}
			written := map[ast.Expr]bool{}
			ast.Inspect(d, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.AssignStmt:
					for _, l := range n.Lhs {
						written[l] = true
					}
				case *ast.SelectorExpr:
					sel := info.Selections[n]
					if sel == nil || sel.Kind() != types.FieldVal || written[n] {
						return true
					}
					recv := sel.Recv()
					if p, ok := recv.(*types.Pointer); ok {
						recv = p.Elem()
					}
					if named, ok := recv.(*types.Named); ok && slices.Contains(factTypes, named.Obj().Name()) {
						out = append(out, named.Obj().Name()+"."+n.Sel.Name)
					}
				}
				return true
			})
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// factsFilled are the fields that facts.go fills: keys of composite literals, and
// assignments to variables of those types.
func factsFilled(t *testing.T) (out []string) {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "facts.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	factType := func(e ast.Expr) string {
		sel, ok := e.(*ast.SelectorExpr)
		if !ok {
			return ""
		}
		if x, ok := sel.X.(*ast.Ident); !ok || x.Name != "sysctl" || !slices.Contains(factTypes, sel.Sel.Name) {
			return ""
		}
		return sel.Sel.Name
	}
	for _, d := range f.Decls {
		vars := map[string]string{}
		ast.Inspect(d, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				for _, e := range n.Elts {
					if kv, ok := e.(*ast.KeyValueExpr); ok && factType(n.Type) != "" {
						out = append(out, factType(n.Type)+"."+kv.Key.(*ast.Ident).Name)
					}
				}
			case *ast.ValueSpec:
				for _, name := range n.Names {
					vars[name.Name] = factType(n.Type)
				}
			case *ast.AssignStmt:
				for i, l := range n.Lhs {
					switch l := l.(type) {
					case *ast.Ident:
						if n.Tok != token.DEFINE || i >= len(n.Rhs) {
							continue
						}
						r := n.Rhs[i]
						if u, ok := r.(*ast.UnaryExpr); ok {
							r = u.X
						}
						switch r := r.(type) {
						case *ast.CompositeLit:
							vars[l.Name] = factType(r.Type)
						case *ast.CallExpr: // sysctlListener(l) gives a Listener, s.roles() Roles
							if fn, ok := r.Fun.(*ast.Ident); ok {
								if typ, ok := strings.CutPrefix(fn.Name, "sysctl"); ok {
									vars[l.Name] = typ
								}
							}
							if fn, ok := r.Fun.(*ast.SelectorExpr); ok && fn.Sel.Name == "roles" {
								vars[l.Name] = "Roles"
							}
						}
					case *ast.SelectorExpr:
						x := l.X
						if inner, ok := x.(*ast.SelectorExpr); ok && inner.Sel.Name == "Sockets" { // f.Sockets.FinWait2
							out = append(out, "SocketTotals."+l.Sel.Name)
							continue
						}
						if id, ok := x.(*ast.Ident); ok && vars[id.Name] != "" {
							out = append(out, vars[id.Name]+"."+l.Sel.Name)
						}
					}
				}
			}
			return true
		})
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// parseDir parses the files of a package that are no tests.
func parseDir(t *testing.T, dir string) (*token.FileSet, []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return fset, files
}
