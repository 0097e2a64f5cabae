package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xeipuuv/gojsonschema"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// forms compiles the published schemas, closed: a key that no schema names is an
// error in what this version prints.
var forms = sync.OnceValues(func() (map[string]*gojsonschema.Schema, error) {
	all := map[string]*gojsonschema.Schema{}
	for file := range published() {
		b, err := os.ReadFile(filepath.Join(schemaDir, file))
		if err != nil {
			return nil, err
		}
		var doc object
		if err := json.Unmarshal(b, &doc); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, d := range doc["definitions"].(object) {
			d.(object)["additionalProperties"] = false
		}
		s, err := gojsonschema.NewSchema(gojsonschema.NewGoLoader(doc))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all[file] = s
	}
	return all, nil
})

// held tells which schemas something was held to.
var held sync.Map

// holdToSchema validates what a command printed with --format json.
func holdToSchema(args []string, out string) error {
	if len(args) == 0 || out == "" {
		return nil
	}
	asked := func(word string) bool {
		i := slices.Index(args, "--format")
		return slices.Contains(args, "--format="+word) || i >= 0 && i+1 < len(args) && args[i+1] == word
	}
	batch := slices.ContainsFunc(args, func(a string) bool { return a == "--batch" || strings.HasPrefix(a, "--batch=") })
	if !asked("json") && !batch {
		return nil
	}
	file := map[string]string{
		"scan": "scan.v1.json", "ports": "ports.v1.json", "reach": "reach-answer.v1.json", "diagnose": "diagnose.v1.json", "watch": "watch.v1.json", "fix": "plan.v1.json",
		"history": "history.v1.json", "diff": "diff.v1.json", "checks": "checks.v1.json",
	}[args[0]]
	if args[0] == "scan" && strings.Contains(strings.Join(args, " "), "--since") {
		file = "diff.v1.json"
	}
	if file == "" {
		return nil
	}
	docs := []string{out}
	if batch {
		docs = strings.Split(strings.TrimSpace(out), "\n")
	}
	for _, doc := range docs {
		if err := holdOne(file, doc); err != nil {
			return fmt.Errorf("hostaudit %s: %w", strings.Join(args, " "), err)
		}
	}
	return nil
}

func holdOne(file, doc string) error {
	all, err := forms()
	if err != nil {
		return err
	}
	r, err := all[file].Validate(gojsonschema.NewStringLoader(doc))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	var wrong []error
	for _, e := range r.Errors() {
		wrong = append(wrong, errors.New(e.String()))
	}
	held.Store(file, true)
	return errors.Join(wrong...)
}

// TestSchemasHold holds real answers of every command to the published schemas. All
// other tests of this package hold theirs, too (audited, exits).
func TestSchemasHold(t *testing.T) {
	lab.Need(t, "nft")
	l := lab.New(t, lab.Topology{})
	s := l.Server
	s.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addr("0.0.0.0:8080")})
	s.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addr("127.0.0.1:9000")})
	s.Load(t, lab.NFT, `table inet filter {
		chain input { type filter hook input priority 0; policy accept;
			ct state established,related accept
			ip saddr 10.9.0.0/26 limit rate 5/second accept
			tcp dport 8080 drop
		}
	}`)
	config := filepath.Join(t.TempDir(), "hostaudit.yaml")
	if err := writeFile(config, []byte("services:\n- {name: web, port: 8080, audience: everyone}\n"+
		"accept:\n- {id: firewall.port-blocked, subject: 'tcp 0.0.0.0:8080', reason: r, until: 2020-01-01}\n")); err != nil {
		t.Fatal(err)
	}
	reports := t.TempDir()
	for _, c := range []struct {
		want int
		args string
	}{
		{1, "scan --quick --format json --keep 3 --reports " + reports + " --config " + config},
		{0, "scan --quick --format json --since last --reports " + reports + " --config " + config},
		{0, "ports --format json"},
		{0, "reach 8080 --format json"},
		{0, "reach [::]:9000 --format json"},
		{1, "reach 8080 --format json --from 203.0.113.5"},
		{1, "reach 8080 --format json --from 10.9.0.1"},
		{0, "checks --format json"},
		{0, "checks firewall.port-blocked --format json"},
		{0, "fix --format json --config " + config},
		{0, "history --format json --root " + t.TempDir()},
	} {
		if out, _ := audited(t, s, c.want, strings.Fields(c.args)...); out == "" {
			t.Errorf("%s printed nothing", c.args)
		}
	}
	attempts := make(chan struct{})
	go func() {
		defer close(attempts)
		time.Sleep(500 * time.Millisecond)
		l.Probe(t, lab.Probe{Proto: lab.TCP, From: netip.MustParseAddr("203.0.113.5"), To: addr("10.9.0.2:8080")})
	}()
	if out, _ := audited(t, s, 0, "watch", "8080", "--for", "4s", "--format", "json"); !strings.Contains(out, "203.0.113.5") {
		t.Errorf("watch saw nothing:\n%s", out)
	}
	<-attempts
	kept, err := filepath.Glob(reports + "/*.json")
	if err != nil || len(kept) != 1 {
		t.Fatal(kept, err)
	}
	whole, err := os.ReadFile(kept[0])
	if err != nil {
		t.Fatal(err)
	}
	for file := range published() {
		if _, ok := held.Load(file); !ok && file != "reach-query.v1.json" && file != "diagnose.v1.json" { // TestDiagnoseKeys
			t.Errorf("nothing was held to %s", file)
		}
	}
	if err := holdOne("reach-query.v1.json", `{"id":"q17","proto":"tcp","from":"10.9.0.1","to":"10.9.0.2","port":8080,"iif":"eth0","from_port":5}`); err != nil {
		t.Error(err)
	}
	// What would break others does not pass.
	for what, broken := range map[string][2]string{
		"a key that no schema names": {`"verdict":`, `"surprise": 1, "verdict":`},
		"a missing key":              {`"exposure":`, `"exposed":`},
		"another type":               {`"port": 8080`, `"port": "8080"`},
		"a word not in the list":     {`"exposure": "depends"`, `"exposure": "hardly anybody"`},
		"another schema":             {`hostaudit/scan/v1`, `hostaudit/scan/v2`},
		"null for a list":            {`"conditions": []`, `"conditions": null`},
	} {
		if !strings.Contains(string(whole), broken[0]) {
			t.Errorf("%s: the report has no %s to break", what, broken[0])
		} else if holdOne("scan.v1.json", strings.Replace(string(whole), broken[0], broken[1], 1)) == nil {
			t.Errorf("%s passes", what)
		}
	}
}
