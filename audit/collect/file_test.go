package collect

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// same compares snapshots by everything they hold: unexported fields too, and
// functions (which only print) by whether they are there.
var same = cmp.Options{
	cmp.Exporter(func(reflect.Type) bool { return true }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(bytes.Equal), // an empty file comes back as none
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
	cmp.Comparer(func(a, b error) bool { return (a == nil) == (b == nil) }),
	cmp.FilterPath(func(p cmp.Path) bool {
		return p.Last().Type() != nil && p.Last().Type().Kind() == reflect.Func
	}, cmp.Comparer(func(a, b any) bool { return reflect.ValueOf(a).IsNil() == reflect.ValueOf(b).IsNil() })),
}

// differences lists the first paths at which two values differ. (The usual diff
// takes seconds to print a whole host.)
func differences(a, b any) string {
	var r paths
	cmp.Equal(a, b, same, cmp.Reporter(&r))
	return strings.Join(r.differ, "\n")
}

type paths struct {
	at     cmp.Path
	differ []string
}

func (r *paths) PushStep(s cmp.PathStep) { r.at = append(r.at, s) }
func (r *paths) PopStep()                { r.at = r.at[:len(r.at)-1] }
func (r *paths) Report(x cmp.Result) {
	if !x.Equal() && len(r.differ) < 12 {
		a, b := r.at.Last().Values()
		r.differ = append(r.differ, fmt.Sprintf("%#v:\n\tlive   %.200v\n\treplay %.200v", r.at, a, b))
	}
}

func save(t testing.TB, c *Capture) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Save(&b, c); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestReplay: what a saved capture says is what was said on the host.
func TestReplay(t *testing.T) {
	lab.Need(t, "nft", "iptables-legacy", "iptables-nft", "ipset")
	l := lab.New(t, lab.Topology{Containers: 1})
	l.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: anyAddr(8081)}, lab.Listen{Proto: lab.UDP, Addr: anyAddr(8082)})
	l.Containers[0].Listen(t, lab.Listen{Proto: lab.TCP, Addr: anyAddr(80)})
	l.Server.Load(t, lab.IPSet, "create some hash:net\nadd some 10.9.0.0/24\n")
	l.Server.Load(t, lab.NFT, nftRules+"\ntable ip t {\n set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 } }\n chain c { type filter hook input priority 5; ip saddr @s iifname \"eth0\" tcp dport { 1, 2, 5-9 } drop; }\n}\n")
	l.Server.Load(t, lab.IPTablesLegacy, strings.Replace(legacyRules, "COMMIT", "-A INPUT -m set --match-set some src -p tcp --dport 99 -j REJECT\nCOMMIT", 1))
	l.Server.Load(t, lab.IP6TablesLegacy, legacyRules)
	l.Server.Load(t, lab.IPTablesNFT, compatRules)

	var live *audit.Snapshot
	var c *Capture
	l.Server.Do(func() {
		var err error
		if live, c, err = Record(t.Context(), Options{Sample: 10 * time.Millisecond, Ask: []netip.Addr{netip.MustParseAddr("10.9.0.1")}}); err != nil {
			t.Error(err)
		}
	})
	if c == nil {
		t.FailNow()
	}
	if len(live.Samples) != 2 || live.Samples[1].At.Sub(live.Samples[0].At) < 10*time.Millisecond {
		t.Errorf("samples %v", live.Samples)
	}
	replayed, err := Load(bytes.NewReader(save(t, c)))
	if err != nil {
		t.Fatal(err)
	}
	if home(replayed).Ruleset == nil || len(home(replayed).Ruleset.Tables) < 4 {
		t.Fatalf("the replay has no ruleset: %v", home(replayed).Unread)
	}
	if d := differences(live, replayed); d != "" {
		t.Errorf("live and replay differ:\n%s", d)
	}
	for i, ns := range live.World.Namespaces {
		if ns.Ruleset == nil {
			continue
		}
		for j, table := range ns.Ruleset.Tables {
			for k, chain := range table.Chains {
				for n, r := range chain.Rules {
					if got := replayed.World.Namespaces[i].Ruleset.Tables[j].Chains[k].Rules[n].Text(); got != r.Text() {
						t.Errorf("rule %q is printed as %q", r.Text(), got)
					}
				}
			}
		}
	}
	// A recording of a recording is the same file.
	again := decode(t, save(t, c))
	if d := differences(c.Taken, again.Taken); d != "" {
		t.Errorf("a capture changes when it is saved:\n%s", d)
	}
}

func decode(t *testing.T, b []byte) *Capture {
	t.Helper()
	c, err := decodeFile(bytes.NewReader(b), maxFile)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// small is a capture as it may be, without a host.
func small() *Capture {
	return &Capture{Schema: Schema, Taken: []reading{{ID: 7, Failed: map[string]string{partListeners: "no answer"}, Answers: []answer{
		{Key: "links", Parts: [][]byte{attr(make([]byte, ifinfomsgLen), 3, []byte("lo\x00"))}},
		{Key: "qdiscs"},
		{Key: "net netlink", Parts: [][]byte{[]byte("sk Eth Pid\n")}},
	}}}}
}

// TestReplayOfLittle: what a file lacks is told, and is not nothing.
func TestReplayOfLittle(t *testing.T) {
	s, err := Load(bytes.NewReader(save(t, small())))
	if err != nil {
		t.Fatal(err)
	}
	ns := home(s)
	for _, part := range []string{partListeners, partRoutes, partFirewall, partPrograms} {
		if ns.Unread[part] == "" {
			t.Errorf("%s is missing and not told: %v", part, ns.Unread)
		}
	}
	if ns.Listeners != nil || ns.Route != nil || ns.Ruleset != nil || ns.Unread[partListeners] != "no answer" {
		t.Errorf("%+v", ns)
	}
	if len(s.Gaps) < 4 {
		t.Errorf("gaps %v", s.Gaps)
	}
}

func TestLoadRefuses(t *testing.T) {
	good := save(t, small())
	zipped := func(text string) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := io.WriteString(z, text); err != nil {
			t.Fatal(err)
		}
		z.Close()
		return b.Bytes()
	}
	later := small()
	later.Schema = "hostaudit/snapshot/v2"
	empty := small()
	empty.Taken = nil
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"empty":         {nil, "not a snapshot"},
		"text":          {[]byte("{}"), "not a snapshot"},
		"cut":           {good[:len(good)-12], "damaged"},
		"checksum":      {append(bytes.Clone(good[:len(good)-8]), 1, 2, 3, 4, 5, 6, 7, 8), "damaged"},
		"no JSON":       {zipped("hello"), "damaged"},
		"another type":  {zipped(`{"schema": 7}`), "damaged"},
		"other schema":  {zipped(`{"schema": "hostaudit/scan/v1"}`), `its schema is "hostaudit/scan/v1"`},
		"later version": {save(t, later), "snapshot/v2"},
		"no namespace":  {save(t, empty), "no network namespace"},
		"two objects":   {zipped(`{"schema": "hostaudit/snapshot/v1", "namespaces": [{}]} {}`), "more behind"},
		"hollow files":  {zipped(`{"schema": "hostaudit/snapshot/v1", "namespaces": [{}], "files": {"nodes": {"/etc": null}}}`), "damaged"},
		"bad address":   {zipped(`{"schema": "hostaudit/snapshot/v1", "namespaces": [{}], "options": {"ask": ["x"]}}`), "x"},
	} {
		s, err := Load(bytes.NewReader(c.file))
		if err == nil || !strings.Contains(err.Error(), c.want) || s != nil {
			t.Errorf("%s: %v, want an error with %q", name, err, c.want)
		}
	}
	if _, err := Load(bytes.NewReader(good)); err != nil {
		t.Errorf("the control does not load: %v", err)
	}
	if _, err := load(bytes.NewReader(zipped(`{"schema": "`+strings.Repeat("x", 100_000)+`"}`)), 10_000); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a bomb: %v", err)
	}
	broken := errors.New("disk on fire")
	if _, err := Load(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("a read error: %v", err)
	}
}

// FuzzLoad: a hostile file gives an error or a snapshot, never a panic.
func FuzzLoad(f *testing.F) {
	plain := func(c *Capture) []byte {
		b, err := json.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	f.Add(plain(small()))
	for _, c := range seeds {
		f.Add(plain(c))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var b bytes.Buffer
		z, _ := gzip.NewWriterLevel(&b, gzip.NoCompression)
		if _, err := z.Write(text); err != nil {
			t.Fatal(err)
		}
		z.Close()
		s, err := load(&b, 1<<20)
		if (s == nil) == (err == nil) {
			t.Fatalf("%v, %v", s, err)
		}
	})
}

// FuzzMessages: no message of the kernel, however it comes, makes a decoder of
// this package panic.
func FuzzMessages(f *testing.F) {
	f.Add(seeds[0].Taken[0].Answers[0].Parts[0], false)
	f.Add(seeds[0].Taken[0].Answers[1].Parts[0], true)
	f.Add([]byte("TCP  0A090002:0050 rr\n    5  123 0 2 65531 0 0 1 1\nPRETTY_NAME=\"x\"\n"), false)
	f.Fuzz(func(t *testing.T, b []byte, big bool) {
		var order binary.ByteOrder = binary.LittleEndian
		if big {
			order = binary.BigEndian
		}
		var list []answer
		for _, key := range []string{"links", "qdiscs", "net ip_vs", "net netfilter/nfnetlink_queue", "net pfkey", "net netlink", "ipsec states", "ipsec policies", "nsid 3",
			"tc filters 2 0xfffffff2", "netfilter hook 2 0", "bpf inventory", "cgroup 5", "legacy tables ip", "legacy info ip filter", "legacy entries ip filter", "ipsets"} {
			list = append(list, answer{Key: key, Parts: [][]byte{b}})
		}
		a := recordedAnswers(list, order)
		readBeside(reader{}, a, a, 1, socketGroups{ids: []uint64{5}}, []other{{inode: 3}})
		_, _, _ = decodeFilter(b, order)
		_, _, _ = decodeHookProgram(b, order)
		decodeNSID(b, order)
		prettyName(b)
		_, _ = replayFirewall(t.Context(), &rawFirewall{}, a, nil)
	})
}
