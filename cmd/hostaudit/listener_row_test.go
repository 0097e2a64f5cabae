package main

import (
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// TestListenerRow holds what the report says of a socket and its owner against what
// its owner knows.
func TestListenerRow(t *testing.T) {
	n := lab.New(t, lab.Topology{}).Server
	var st unix.Stat_t
	n.Do(func() {
		fd := streamSocket(t, unix.SOCK_STREAM)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 77); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{unix.Bind(fd, &unix.SockaddrInet4{Port: 8077}), unix.Listen(fd, 7), unix.Fstat(fd, &st)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	rows, _ := scopesOf(t, n)
	l := rows[8077]
	if l.UID != uint32(os.Geteuid()) || l.Inode != uint32(st.Ino) || l.Mark == nil || *l.Mark != 77 || l.Backlog == nil || l.Backlog.Limit != 7 {
		t.Errorf("the socket: %+v", l)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	ticks, err := strconv.Atoi(strings.Fields(after)[19])
	if err != nil {
		t.Fatal(err)
	}
	if p := l.Process; p == nil || p.PID != os.Getpid() || string(p.Executable) != exe || math.Abs(p.Started-float64(ticks)/100) > 0.001 {
		t.Errorf("its owner: %+v, want pid %d, %s, %d ticks", p, os.Getpid(), exe, ticks)
	}
}
