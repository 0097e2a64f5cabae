package report

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestListenersAreWrittenOneByOne: a report that is written piece by piece is
// the same text as one that is encoded whole.
func TestListenersAreWrittenOneByOne(t *testing.T) {
	all := reports(t)
	several := 0
	for name, r := range all {
		if len(r.Listeners) > 1 {
			several++
		}
		want, err := encode(r, "  ")
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := JSON(&got, r); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if several == 0 {
		t.Error("no report has several listeners")
	}
}
