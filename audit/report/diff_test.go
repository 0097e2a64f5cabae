package report

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// TestCompareAudience: a wider audience names exactly the sources that got in.
func TestCompareAudience(t *testing.T) {
	read := func(from, sees string) *Kept {
		k, err := ReadKept([]byte(`{"schema":"hostaudit/scan/v1","listeners":[{"proto":"tcp","address":"0.0.0.0","port":80,"partition":[
			{"from":["10.0.0.0/9"],"iif":"eth0","client_sees":"connected"},{"from":["` + from + `"],"iif":"eth0","client_sees":"` + sees + `"}]}],
			"sysctls":[{"key":"k","live":"` + sees + `"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	closed, open, depends := read("10.128.0.0/9", "timeout"), read("10.128.0.0/9", "connected"), read("10.128.0.0/9", "depends")
	words := func(all []Sources) string {
		var b strings.Builder
		for _, s := range all {
			fmt.Fprintf(&b, "%s %s %v everyone=%v ", s.Iif, s.Family, s.From, s.Everyone)
		}
		return b.String()
	}
	const upper = "eth0 ip [10.128.0.0/9] everyone=false "
	for _, c := range []struct {
		a, b                   *Kept
		opened, closed, unsure string
	}{
		{closed, open, upper, "", ""},
		{open, closed, "", upper, ""},
		{closed, depends, "", "", upper},
		{depends, open, "", "", upper},
	} {
		d := Compare(c.a, c.b)
		if len(d.Listeners) != 1 || words(d.Listeners[0].Opened) != c.opened || words(d.Listeners[0].Closed) != c.closed || words(d.Listeners[0].Unsure) != c.unsure || len(d.Sysctls) != 1 {
			t.Errorf("%+v", d)
		}
		var b bytes.Buffer
		if err := DiffText(&b, d, Options{Width: 80}); err != nil || !strings.Contains(b.String(), "10.128.0.0/9 by eth0 (IPv4)") {
			t.Errorf("%v %s", err, b.String())
		}
	}
	if d := Compare(open, open); !d.Empty() {
		t.Errorf("%+v", d)
	}
}

// TestCompare: what each kind of change becomes in words, and that a partition
// which was too large for one report is not taken for an empty one.
func TestCompare(t *testing.T) {
	read := func(parts string) *Kept {
		t.Helper()
		k, err := ReadKept([]byte(`{"schema":"hostaudit/scan/v1","host":{"name":"h"},` + parts + `}`))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	const (
		all  = `"partition":[{"from":["0.0.0.0/8"],"iif":"eth0","client_sees":"timeout","decided_by":{"kind":"route"}},{"from":["10.0.0.0/8"],"iif":"eth0","client_sees":"connected"}]`
		none = `"partition":[{"from":["10.0.0.0/8"],"iif":"eth0","client_sees":"timeout"}]`
		web  = `{"proto":"tcp","address":"0.0.0.0","port":80,"process":{"name":"nginx"},"exposure":"everyone",`
	)
	for _, c := range []struct {
		what, a, b string
		want       []string
		empty      bool
	}{
		{"new", `"listeners":[]`, `"listeners":[` + web + all + `}]`, []string{"1 new listener.", "new       tcp 0.0.0.0:80 (nginx): who can connect: everyone", "gets in now: everyone by eth0 (IPv4)"}, false},
		{"gone", `"listeners":[` + web + all + `}]`, `"listeners":[]`, []string{"1 listener gone.", "gone      tcp 0.0.0.0:80 (nginx)"}, false},
		{"program", `"listeners":[` + web + all + `}]`, `"listeners":[` + strings.Replace(web, "nginx", "nc", 1) + all + `}]`, []string{"1 other program.", "(nc, was nginx)"}, false},
		{"program not known", `"listeners":[` + web + all + `}]`, `"listeners":[` + strings.Replace(web, `{"name":"nginx"}`, "null", 1) + all + `}]`, nil, true},
		{"left out in one", `"listeners":[` + web + all + `}]`, `"listeners":[` + web + `"partition":[],"partition_left_out":"5000 ranges"}]`, nil, true},
		{"left out, another word", `"listeners":[` + web + all + `}]`, `"listeners":[` + strings.Replace(web, "everyone", "some", 1) + `"partition":[],"partition_left_out":"5000 ranges"}]`,
			[]string{"who can connect: some, was everyone", "not compared", "5000 ranges"}, false},
		{"published", `"published":[` + web + none + `}]`, `"published":[` + web + all + `}]`, []string{"1 other audience.", "tcp *:80 (published)", "gets in now: everyone"}, false},
		{"counter", `"sysctls":[{"key":"fs.file-nr","live":"1 0 9"}]`, `"sysctls":[{"key":"fs.file-nr","live":"2 0 9"}]`, nil, true},
		{"reboot", `"sysctls":[{"key":"net.ipv4.ip_forward","live":"0","after_reboot":"0"}]`, `"sysctls":[{"key":"net.ipv4.ip_forward","live":"0","after_reboot":"1"}]`,
			[]string{"1 setting changed.", "net.ipv4.ip_forward = 0 as before; after a reboot 1, was 0"}, false},
		{"accepted", `"findings":[{"id":"a.b","subject":"s","title":"t","severity":"warning"}]`, `"findings":[{"id":"a.b","subject":"s","title":"t","severity":"warning","accepted":{"reason":"r"}}]`,
			[]string{"1 finding gone.", "warning: t"}, false},
		{"gaps", `"incomplete":[{"what":"firewall","why":"x"}]`, `"incomplete":[{"what":"owners","why":"y","minor":true},{"what":"routes","why":"z"}]`,
			[]string{"Nothing changed.", "firewall in the earlier report", "routes in the later report"}, true},
	} {
		d := Compare(read(c.a), read(c.b))
		var b bytes.Buffer
		if err := DiffText(&b, d, Options{Width: 200}); err != nil {
			t.Fatal(err)
		}
		if d.Empty() != c.empty {
			t.Errorf("%s: empty %v\n%s", c.what, d.Empty(), b.String())
		}
		for _, w := range c.want {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%s: no %q in\n%s", c.what, w, b.String())
			}
		}
		if strings.Contains(b.String(), "owners") {
			t.Errorf("%s: a gap that no answer turns on is told\n%s", c.what, b.String())
		}
	}
}
