package listeners

import (
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// The effective user counts, of a process that is not dumpable as well: its files
// in procfs belong to root then, but not its directory.
func TestEffectiveUser(t *testing.T) {
	if os.Geteuid() != 0 {
		missing(t, "only root can be somebody else")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "LISTENERS_TEST_ROLE=setuid")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer endChild(in, cmd)
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+strconv.Itoa(cmd.Process.Pid)+"/status", &st); err != nil || st.Uid != 0 {
		t.Fatalf("not a process whose files are root's: %v, user %d", err, st.Uid)
	}
	dir, err := unix.Open("/proc/"+strconv.Itoa(cmd.Process.Pid), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	var r procReader
	p, err := r.describe(dir, cmd.Process.Pid)
	if err != nil || p.UID != 65532 {
		t.Errorf("user %d, %v", p.UID, err)
	}
}
