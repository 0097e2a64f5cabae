package report

import (
	"bytes"
	"slices"
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
	for _, c := range []struct {
		a, b                   *Kept
		opened, closed, unsure []string
	}{
		{closed, open, []string{"eth0: 10.128.0.0/9"}, nil, nil},
		{open, closed, nil, []string{"eth0: 10.128.0.0/9"}, nil},
		{closed, depends, nil, nil, []string{"eth0: 10.128.0.0/9"}},
		{depends, open, nil, nil, []string{"eth0: 10.128.0.0/9"}},
	} {
		d := Compare(c.a, c.b)
		if len(d.Listeners) != 1 || !slices.Equal(d.Listeners[0].Opened, c.opened) || !slices.Equal(d.Listeners[0].Closed, c.closed) || !slices.Equal(d.Listeners[0].Unsure, c.unsure) || len(d.Sysctls) != 1 {
			t.Errorf("%+v", d)
		}
		var b bytes.Buffer
		if err := DiffText(&b, d, Options{Width: 80}); err != nil || !strings.Contains(b.String(), "10.128.0.0/9") {
			t.Errorf("%v %s", err, b.String())
		}
	}
	if d := Compare(open, open); !d.Empty() {
		t.Errorf("%+v", d)
	}
}
