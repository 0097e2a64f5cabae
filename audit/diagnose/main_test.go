package diagnose

import (
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/lab"
)

const roleVar = "DIAGNOSE_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		play(role)
	}
	// What is tested mostly waits for deadlines, in namespaces of its own: more of
	// it than there are processors goes on at a time, unless -parallel says otherwise.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	lab.Main(m)
}

// play makes the test binary something else: a child process of a test. It ends
// with its stdin.
func play(role string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	switch role {
	case "sleep":
		fmt.Println("ready")
	case "files": // listens, with so many descriptors allowed, and accepts while it has any
		limit, err := strconv.ParseUint(os.Args[2], 10, 32)
		fail(err)
		fail(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}))
		l, err := net.Listen("tcp4", os.Args[1])
		fail(err)
		var open []net.Conn
		go func() {
			for {
				if c, err := l.Accept(); err == nil { // EMFILE comes as a temporary error, again and again
					open = append(open, c)
				}
			}
		}()
		fmt.Println("ready")
	}
	var b [1]byte
	_, _ = os.Stdin.Read(b[:])
	os.Exit(0)
}
