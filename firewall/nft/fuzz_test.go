package nft

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	fw "github.com/hostaudit/hostaudit/firewall"
)

var update = flag.Bool("update", false, "write testdata/recordings anew (needs root and nft)")

// recorded are the rulesets behind testdata/recordings.
func recorded() map[string]string {
	all := map[string]string{"sample": sample}
	for _, c := range corpora {
		b, err := os.ReadFile(filepath.Join("testdata", c.file))
		if err != nil {
			continue
		}
		all[c.family+"-"+strings.TrimSuffix(c.file, ".rules")] = prelude(c.family, c.chain) + "\x00" + c.family + "\x00" + string(b)
	}
	return all
}

// record loads a ruleset in a namespace and returns the answers of the kernel.
func record(t *testing.T, ruleset string) []byte {
	inNetns(t)
	parts := strings.SplitN(ruleset, "\x00", 3)
	load(t, parts[0])
	if len(parts) == 3 {
		for _, line := range strings.Split(parts[2], "\n") {
			if line != "" && line[0] != '#' {
				tryTool("add rule "+parts[1]+" t c "+line+"\n", "nft", "-f", "-")
			}
		}
	}
	src, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	rec := Record(src)
	if _, err := Read(context.Background(), rec, Options{}); err != nil {
		t.Fatal(err)
	}
	b, err := rec.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRecordings: recordings of a kernel (6.18) decode to the same model and
// text as when they were made; no root is needed for it.
func TestRecordings(t *testing.T) {
	dir := filepath.Join("testdata", "recordings")
	if *update {
		needTools(t, "nft")
		for name, ruleset := range recorded() {
			t.Run("record "+name, func(t *testing.T) {
				b := record(t, ruleset)
				if err := os.WriteFile(filepath.Join(dir, name+".bin"), b, 0o644); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.bin"))
	if len(files) < 5 {
		t.Fatalf("only %d recordings", len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			src, err := Replay(b)
			if err != nil {
				t.Fatal(err)
			}
			rs, err := Read(context.Background(), src, Options{LinkNames: loName})
			if err != nil {
				t.Fatal(err)
			}
			got := everything(rs)
			want := strings.TrimSuffix(file, ".bin") + ".txt"
			if *update {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			b, err = os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(b), got); d != "" {
				t.Error(d)
			}
		})
	}
}

// FuzzReplay: no answer of a kernel makes the decoder or the printer panic.
func FuzzReplay(f *testing.F) {
	files, _ := filepath.Glob(filepath.Join("testdata", "recordings", "*.bin"))
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		src, err := Replay(b)
		if err != nil {
			return
		}
		rs, err := Read(context.Background(), src, Options{})
		if err != nil {
			return
		}
		everything(rs)
	})
}

// FuzzRule: no expressions of a rule make the lowering or the printer panic, and
// nothing is dropped in silence: a rule that has an expression which is not
// known has an opaque statement.
func FuzzRule(f *testing.F) {
	base := func(t testing.TB) *decoder {
		b, err := os.ReadFile(filepath.Join("testdata", "recordings", "inet-filter.bin"))
		if err != nil {
			t.Fatal(err)
		}
		src, err := Replay(b)
		if err != nil {
			t.Fatal(err)
		}
		d := newDecoder()
		ctx := context.Background()
		for _, part := range []struct {
			typ uint8
			f   func([]byte) error
		}{{msgGetTable, d.table}, {msgGetChain, d.chain}, {msgGetSet, d.set}} {
			if err := each(ctx, src, dump(part.typ), part.f); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	files, _ := filepath.Glob(filepath.Join("testdata", "recordings", "*.bin"))
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		src, err := Replay(b)
		if err != nil {
			f.Fatal(err)
		}
		err = each(context.Background(), src, dump(msgGetRule), func(msg []byte) error {
			for a := walk(msg[nfgenLen:]); a.next(); {
				if a.typ == ruleExpressions {
					f.Add(append([]byte(nil), a.val...))
				}
			}
			return nil
		})
		if err != nil {
			f.Fatal(err)
		}
	}
	d := base(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		tab := d.tables[0]
		d.run.t = tab
		d.run.chain = tab.chains[tab.table.Chains[0].Name]
		stmts := d.run.rule(b)
		w := newWriter(tab)
		w.rule(b)
		_ = w.String()
		unknown := false
		for a := walk(b); a.next(); {
			var name []byte
			for e := walk(a.val); e.next(); {
				if e.typ == exprName {
					name = cstring(e.val)
				}
			}
			if _, ok := expressionNamed(name); !ok {
				unknown = true
			}
		}
		for _, s := range stmts {
			if s == nil {
				t.Fatal("a nil statement")
			}
			if o, ok := s.(*fw.Opaque); ok && o.MayEnd {
				unknown = false
			}
		}
		if unknown {
			t.Errorf("an unknown expression was dropped: %x", b)
		}
	})
}
