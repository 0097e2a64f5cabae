package diagnose_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/diagnose"
)

// TestPipeForFile: a pipe that its writer keeps open where a pid file is expected
// holds nobody up.
func TestPipeForFile(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	pid := filepath.Join(root, "run/app.pid")
	if err := os.Mkdir(filepath.Dir(pid), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(pid, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(pid, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	done := make(chan *diagnose.HostFacts, 1)
	go func() {
		done <- diagnose.ReadHost(t.Context(), diagnose.HostOptions{Root: root, Unit: "app"})
	}()
	select {
	case h := <-done:
		if h.Unit == nil || h.Unit.StalePID != 0 {
			t.Errorf("%+v", h.Unit)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for the pipe")
	}
	// The control: a plain file there is read.
	w.Close()
	if err := os.Remove(pid); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pid, []byte("4194305\n"), 0o600); err != nil { // above pid_max
		t.Fatal(err)
	}
	if h := diagnose.ReadHost(t.Context(), diagnose.HostOptions{Root: root, Unit: "app"}); h.Unit.StalePID != 4194305 {
		t.Errorf("%+v", h.Unit)
	}
}
