package diagnose

import "testing"

// TestRedact: no part of a password is printed, whatever characters it has.
func TestRedact(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"http://proxy:3128": "http://proxy:3128", "http://u:p@proxy:3128": "http://…@proxy:3128", "http://u:p@ss@proxy:3128": "http://…@proxy:3128",
		"u:p@proxy": "…@proxy", "socks5://u:a://b@proxy": "socks5://…@proxy",
	} {
		if got := redact(in); got != want {
			t.Errorf("redact(%q) = %q, want %q", in, got, want)
		}
	}
}
