package main

import "testing"

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]string{
		"8080": "invalid IP 8080", ":8080": "invalid IP 8080", "10.0.0.5:8080": "10.0.0.5 8080", "[2001:db8::1]:443": "2001:db8::1 443",
		"0.0.0.0:8080": "0.0.0.0 8080", "[::ffff:10.0.0.1]:1": "10.0.0.1 1",
		"": "", ":": "", "0": "", "65536": "", "-1": "", "+80": "", "8080x": "", "a:80": "", "::1": "", "2001:db8::1:443": "", "[10.0.0.1]:80": "", "10.0.0.1": "", "10.0.0.1:": "",
	} {
		addr, port, err := parseTarget(in)
		got := ""
		if err == nil {
			got = addr.String() + " " + portText(port)
		}
		if got != want {
			t.Errorf("target %q: %q (%v), want %q", in, got, err, want)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	f.Add("[2001:db8::1]:443")
	f.Add("10.0.0.1:80")
	f.Fuzz(func(t *testing.T, s string) {
		addr, port, err := parseTarget(s)
		if err == nil && (port == 0 || addr.Is4In6()) {
			t.Fatalf("%q: %v %d", s, addr, port)
		}
	})
}

func portText(p uint16) string {
	s := ""
	for ; p > 0; p /= 10 {
		s = string(rune('0'+p%10)) + s
	}
	return s
}
