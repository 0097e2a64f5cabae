// Command load fills a network namespace of its own with sockets and processes,
// for the benchmarks of package listeners:
//
//	load -timewait 1000000 -established 60000 -listen 1000 -procs 10000 -- COMMAND…
//
// It makes the namespace, the processes (each with -fds descriptors; the first
// ones hold a listener each) and the sockets, prints what it made as one JSON
// line, runs COMMAND inside and ends with its exit status. Without COMMAND it
// waits until its standard input ends. Sizes may also come from the environment:
// LOAD_TIMEWAIT, LOAD_ESTABLISHED, LOAD_LISTEN, LOAD_PROCS, LOAD_FDS.
//
// TIME_WAIT lasts a minute, begun again for all just before COMMAND starts, and
// again whenever COMMAND writes a byte to descriptor 3, where it is answered with
// a byte when that is done.
//
// Everything happens on loopback in the namespace; nothing outside is touched.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const insideMark = "LOAD_INSIDE"

type size struct {
	TimeWait    int `json:"time_wait"`
	Established int `json:"established"`
	Listen      int `json:"listen"`
	Procs       int `json:"procs"`
	FDs         int `json:"fds"`
	// Address puts all listeners on one address, ports 8 and up, and not on
	// addresses of loopback by turns.
	Address string `json:"address,omitempty"`
}

func main() {
	runtime.LockOSThread() // the processes die with this thread (PR_SET_PDEATHSIG)
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		code = 1
	}
	os.Exit(code)
}

func run() (int, error) {
	var s size
	for _, f := range []struct {
		to   *int
		name string
		std  int
		help string
	}{
		{&s.TimeWait, "timewait", 0, "sockets in TIME_WAIT"},
		{&s.Established, "established", 0, "established connections without a peer"},
		{&s.Listen, "listen", 0, "TCP listeners"},
		{&s.Procs, "procs", 0, "idle processes"},
		{&s.FDs, "fds", 13, "descriptors of each process"},
	} {
		std := f.std
		if v := os.Getenv("LOAD_" + strings.ToUpper(f.name)); v != "" {
			n, err := strconv.Atoi(v)
			if err != nil {
				return 0, fmt.Errorf("LOAD_%s: %w", strings.ToUpper(f.name), err)
			}
			std = n
		}
		flag.IntVar(f.to, f.name, std, f.help)
	}
	flag.StringVar(&s.Address, "address", "", "all listeners (at most 1,016) on this IPv4 `ADDRESS` and not on 127.0.1.x")
	flag.Parse()
	if part := os.Getenv(holdMark); part != "" {
		return 0, hold(part)
	}
	if os.Getenv(insideMark) == "" {
		return reenter()
	}
	return inside(s, flag.Args())
}

// reenter runs this program again in network and mount namespaces of its own.
func reenter() (int, error) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideMark+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func inside(s size, command []string) (int, error) {
	if err := prepare(s); err != nil {
		return 0, err
	}
	begin := time.Now()
	listeners, err := makeListeners(s)
	if err != nil {
		return 0, err
	}
	if err := makeProcesses(s, listeners); err != nil {
		return 0, err
	}
	procsDone := time.Now()
	if err := makeEstablished(s.Established); err != nil {
		return 0, err
	}
	establishedDone := time.Now()
	waiting, err := makeTimeWait(s.TimeWait)
	if err != nil {
		return 0, err
	}
	sockstat, err := os.ReadFile("/proc/thread-self/net/sockstat")
	if err != nil {
		return 0, err
	}
	out, err := json.Marshal(map[string]any{
		"made": s, "sockstat": string(sockstat),
		"seconds": map[string]float64{
			"processes":   procsDone.Sub(begin).Seconds(),
			"established": establishedDone.Sub(procsDone).Seconds(),
			"time_wait":   time.Since(establishedDone).Seconds(),
		},
	})
	if err != nil {
		return 0, err
	}
	fmt.Println(string(out))
	if len(command) == 0 {
		_, err := io.Copy(io.Discard, os.Stdin)
		return 0, err
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// The test binary must stay in this namespace and not make one of its own.
	cmd.Env = append(os.Environ(), "LISTENERS_TEST_CHILD=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "requests"), os.NewFile(uintptr(pair[1]), "requests")
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	theirs.Close()
	go waiting.serve(ours)
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// prepare sets up loopback and the settings of the namespace; all of them belong
// to the namespace and end with it.
func prepare(s size) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	for key, value := range map[string]string{
		"net/ipv4/tcp_max_tw_buckets":  strconv.Itoa(3_000_000),
		"net/ipv4/tcp_tw_reuse":        "0",
		"net/ipv4/tcp_timestamps":      "0",
		"net/ipv4/tcp_rfc1337":         "1",
		"net/ipv4/ip_local_port_range": "1024 65535",
		"net/core/somaxconn":           "65535",
	} {
		if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s: %w", key, err)
		}
	}
	return raiseFileLimit(s.Listen + 1024)
}
