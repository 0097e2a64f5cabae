package diagnose

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// LogHit is something in a service's log that tells about clients or the start.
type LogHit struct {
	Kind  LogKind
	Count int
	Last  string // the last such line, host text
	// Value is the protocol that knocked ("HTTP", "TLS", …), or the address or
	// port of a bind error.
	Value string
}

// LogKind tells hits apart.
type LogKind string

// The kinds of hits.
const (
	LogKnock       LogKind = "knock"          // a length header that is another protocol's first four bytes
	LogBindInUse   LogKind = "bind in use"    // EADDRINUSE of bind
	LogBindNoAddr  LogKind = "bind no addr"   // EADDRNOTAVAIL of bind
	LogBindDenied  LogKind = "bind denied"    // EACCES of bind
	LogTooManyFile LogKind = "too many files" // EMFILE, or select()'s 1024
	LogExit        LogKind = "exit"           // a worker died
	LogNotReady    LogKind = "not ready"      // GatewayWorker has no BusinessWorker
	LogTLS         LogKind = "tls"            // SSL handshake errors
	LogOutOfMemory LogKind = "oom"
	LogDisabled    LogKind = "disabled" // stream_socket_server in disable_functions
)

// magics are first four bytes of protocols as a 32-bit big-endian length.
var magics = map[uint64]string{
	1195725856: "HTTP", 1347375956: "HTTP", 1212498244: "HTTP", 1330664521: "HTTP", 1347569952: "HTTP",
	369295616: "TLS", 369295617: "TLS", 369295618: "TLS", 369295619: "TLS",
	1397966893: "SSH", 218762506: "a port scanner", 707857674: "Redis",
}

var packageLength = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`package_length ?= ?([0-9]{6,10})`) })

// logTail is how much of the end of a log is read.
const logTail = 4 << 20

func readLog(ctx context.Context, name string) ([]LogHit, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: is no plain file", name)
	}
	if n := st.Size() - logTail; n > 0 {
		if _, err := f.Seek(n, io.SeekStart); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, logTail))
	return parseLog(string(b)), err
}

// parseLog finds the lines that tell something.
func parseLog(text string) []LogHit {
	var hits []LogHit
	note := func(kind LogKind, value, line string) {
		line = strings.TrimSpace(line)
		if len(line) > 300 {
			line = line[:300]
		}
		i := slices.IndexFunc(hits, func(h LogHit) bool { return h.Kind == kind && h.Value == value })
		if i < 0 {
			hits = append(hits, LogHit{Kind: kind, Value: value})
			i = len(hits) - 1
		}
		hits[i].Count++
		hits[i].Last = line
	}
	for line := range strings.Lines(text) {
		if m := packageLength().FindStringSubmatch(line); m != nil {
			n, err := strconv.ParseUint(m[1], 10, 32)
			if who := magics[n]; err == nil && who != "" {
				note(LogKnock, who, line)
				continue
			}
		}
		low := strings.ToLower(line)
		s := Symptom{}
		if strings.Contains(low, "address") || strings.Contains(low, "permission denied") {
			s = ParseError(line)
		}
		where := ""
		if s.Addr.IsValid() {
			where = s.Addr.String()
			if s.Port != 0 {
				where = fmt.Sprintf("%s:%d", hostText(s.Addr.String()), s.Port)
			}
		}
		switch {
		case s.Bind && !s.Connect && s.Kind == KindAddrInUse:
			note(LogBindInUse, where, line)
		case s.Bind && !s.Connect && s.Kind == KindAddrNotAvail:
			note(LogBindNoAddr, where, line)
		case s.Bind && !s.Connect && s.Kind == KindAccess:
			note(LogBindDenied, where, line)
		case strings.Contains(low, "too many open files"), strings.Contains(low, "exceeded the maximum number of connections 1024"):
			note(LogTooManyFile, "", line)
		case strings.Contains(low, "status 64000"), strings.Contains(low, "status 65280"), strings.Contains(low, "segfault"), strings.Contains(low, "exit with status"):
			note(LogExit, "", line)
		case strings.Contains(low, "sendbuffertoworker fail"):
			note(LogNotReady, "", line)
		case strings.Contains(low, "ssl handshake error"), strings.Contains(low, "ssl_do_handshake() failed"):
			note(LogTLS, "", line)
		case strings.Contains(low, "out of memory"), strings.Contains(low, "oom-kill"):
			note(LogOutOfMemory, "", line)
		case strings.Contains(low, "stream_socket_server() has been disabled"):
			note(LogDisabled, "", line)
		}
	}
	return hits
}

func hostText(a string) string {
	if strings.Contains(a, ":") {
		return "[" + a + "]"
	}
	return a
}

func hit(hits []LogHit, kind LogKind, value string) *LogHit {
	for i := range hits {
		if hits[i].Kind == kind && (value == "" || hits[i].Value == value) {
			return &hits[i]
		}
	}
	return nil
}
