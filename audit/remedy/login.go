package remedy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// Login is the connection that an operator came in over; the zero value is none
// (a console, a timer).
type Login struct {
	// Connection is SSH_CONNECTION: client address and port, own address and port.
	Connection string `json:"connection,omitempty"`
	// Server is the pid of the sshd that serves it, 0 for not known.
	Server int `json:"server,omitempty"`
	// Since is when that sshd was started, in nanoseconds of CLOCK_BOOTTIME, 0 for
	// not known.
	Since int64 `json:"since,omitempty"`
}

// Older says whether the connection surely was open at a time of CLOCK_BOOTTIME.
func (l Login) Older(at int64) bool { return l.Connection != "" && l.Since != 0 && l.Since < at }

// there says whether the sshd that serves the connection is seen to live; false where it
// is not known.
func (l Login) there() bool {
	if l.Server == 0 || l.Since == 0 {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", l.Server))
	return err == nil && startOf(stat) == l.Since
}

// Same says whether two runs came in over the same connection.
func (l Login) Same(o Login) bool {
	return l.Connection != "" && l.Connection == o.Connection && (l.Server == o.Server || l.Server == 0 || o.Server == 0)
}

// Path is one connection of an operator: who must stay able to connect where.
type Path struct {
	From     netip.Addr `json:"from"`
	FromPort uint16     `json:"from_port"`
	To       netip.Addr `json:"to"`
	Port     uint16     `json:"port"`
}

func (p Path) String() string {
	return fmt.Sprintf("%s → %s", p.From, netip.AddrPortFrom(p.To, p.Port))
}

// path parses SSH_CONNECTION.
func (l Login) path() (Path, bool) {
	f := strings.Fields(l.Connection)
	if len(f) != 4 {
		return Path{}, false
	}
	from, err1 := netip.ParseAddr(f[0])
	fromPort, err2 := strconv.ParseUint(f[1], 10, 16)
	to, err3 := netip.ParseAddr(f[2])
	port, err4 := strconv.ParseUint(f[3], 10, 16)
	if errors.Join(err1, err2, err3, err4) != nil {
		return Path{}, false
	}
	return Path{from.Unmap().WithZone(""), uint16(fromPort), to.Unmap().WithZone(""), uint16(port)}, true
}

// maxAncestors bounds the walk to process 1.
const maxAncestors = 64

// FindLogin looks for the SSH connection of this process: sudo and su take
// SSH_CONNECTION away, so the nearest ancestor that still has it counts. The
// nearest ancestor named sshd is its server. proc is "/proc".
func FindLogin(proc string, pid int) Login {
	var l Login
	for range maxAncestors {
		if pid <= 1 {
			break
		}
		dir := proc + "/" + strconv.Itoa(pid)
		if l.Connection == "" {
			if env, err := os.ReadFile(dir + "/environ"); err == nil {
				for kv := range bytes.SplitSeq(env, []byte{0}) {
					if v, ok := strings.CutPrefix(string(kv), "SSH_CONNECTION="); ok && len(v) < 200 {
						l.Connection = v
					}
				}
			}
		}
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			break
		}
		comm, parent, ok := parseStat(stat)
		if !ok {
			break
		}
		if l.Server == 0 && strings.HasPrefix(comm, "sshd") {
			l.Server, l.Since = pid, startOf(stat)
		}
		pid = parent
	}
	if _, ok := l.path(); !ok {
		l.Connection = ""
	}
	return l
}

// parseStat reads name and parent of /proc/PID/stat. The name may hold anything,
// blanks and parentheses too: it ends at the last one.
func parseStat(b []byte) (comm string, parent int, ok bool) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return "", 0, false
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 2 {
		return "", 0, false
	}
	parent, err := strconv.Atoi(f[1])
	return string(b[open+1 : end]), parent, err == nil
}

// userHZ is the unit of times in /proc (sysconf(_SC_CLK_TCK)): 100 on every
// architecture of Linux that Go knows.
const userHZ = 100

// startOf is when a process was started, from its stat (field 22, proc(5)), in
// nanoseconds since boot; 0 where it cannot be told. It is cut to a tick, and a tick
// is added: a login is never taken for older than it is.
func startOf(stat []byte) int64 {
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 20 {
		return 0
	}
	ticks, err := strconv.ParseInt(f[19], 10, 64)
	if err != nil || ticks <= 0 || ticks > 1<<50 {
		return 0
	}
	return (ticks + 1) * int64(time.Second/userHZ)
}

// established lists the established TCP connections to the given local ports, of
// the calling thread's network namespace.
func established(proc string, ports map[uint16]bool) ([]Path, error) {
	var out []Path
	for _, name := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(proc + "/thread-self/net/" + name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read connections: %w", err)
		}
		out = append(out, parseEstablished(b, ports)...)
	}
	return out, nil
}

// parseEstablished reads /proc/net/tcp or tcp6 (net/ipv4/tcp_ipv4.c,
// get_tcp4_sock): addresses are words in host byte order, state 01 is
// ESTABLISHED.
func parseEstablished(b []byte, ports map[uint16]bool) []Path {
	var out []Path
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) < 4 || f[3] != "01" {
			continue
		}
		local, ok1 := procAddr(f[1])
		remote, ok2 := procAddr(f[2])
		if ok1 && ok2 && ports[local.Port()] {
			out = append(out, Path{remote.Addr().Unmap(), remote.Port(), local.Addr().Unmap(), local.Port()})
		}
	}
	return out
}

func procAddr(s string) (netip.AddrPort, bool) {
	a, p, ok := strings.Cut(s, ":")
	port, err := strconv.ParseUint(p, 16, 16)
	if !ok || err != nil || len(a) != 8 && len(a) != 32 {
		return netip.AddrPort{}, false
	}
	raw := make([]byte, 0, 16)
	for i := 0; i < len(a); i += 8 {
		w, err := strconv.ParseUint(a[i:i+8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, false
		}
		raw = binary.NativeEndian.AppendUint32(raw, uint32(w))
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(port)), ok
}
