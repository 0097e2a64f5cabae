package ipset

import (
	"context"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// open opens the source inside a namespace.
func open(t testing.TB, n *lab.Namespace) *Kernel {
	t.Helper()
	var k *Kernel
	var err error
	n.Do(func() { k, err = Open() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// readAll reads the sets of a namespace.
func readAll(t testing.TB, n *lab.Namespace) *Sets {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := Read(ctx, open(t, n))
	if err != nil {
		t.Fatal(err)
	}
	return s
}
