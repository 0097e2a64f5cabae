package webserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Process is one of the processes that hold a listening socket.
type Process struct {
	PID     int
	Name    string // the kernel's comm
	Command string // arguments apart by NUL
	// Start is when it started, in clock ticks (1/100 s) after boot.
	Start uint64
}

// Place is a line of a file.
type Place struct {
	File string // in the server's own root
	Line int
}

func (p Place) String() string { return p.File + ":" + strconv.Itoa(p.Line) }

// Note is a line that decided something, and what it says.
type Note struct {
	Place
	Text string // host text
}

// Tri is an answer that may be unknown.
type Tri uint8

// The answers.
const (
	Unknown Tri = iota
	No
	Yes
)

// Query is a request to a listener.
type Query struct {
	// Port is that of the socket, Dialled that of the URL: behind an address
	// translation another one. 0 for the same.
	Port, Dialled uint16
	// Addr is the server's address that it comes to, invalid for not known.
	Addr netip.Addr
	Host string // as the Host header has it, without the port
	Path string // without the query, "" for /
	// TLS and WebSocket are what the client begins with and asks for.
	TLS, WebSocket bool
	From           netip.Addr // of the client, invalid for not known
}

// Does is what a server does with a request.
type Does string

// What servers do.
const (
	NotKnown Does = ""
	Forwards Does = "forwards"
	Returns  Does = "returns" // a status of its own
	Serves   Does = "serves"  // files
	Passes   Does = "passes"  // bytes, whatever they are
)

// Backend is where requests are forwarded to.
type Backend struct {
	Addr netip.Addr // invalid for a name, and for the loopback of either family
	Port uint16
	Name string // a host name, or the path of a socket
	Unix bool
	// Missing: there is no socket of that path.
	Missing bool
	Text    string // host text
	Place   Place
}

// Loopback tells that the backend is this host under its own name.
func (b Backend) Loopback() bool { return b.Name == "localhost" }

// Answer is what a configuration says of a request. The zero value of each field
// says nothing.
type Answer struct {
	Listen Note // the line that opens the port
	TLS    Tri
	// Site is the virtual host; ByDefault: none has the name of the request.
	Site      Note
	ByDefault bool
	// Route is the line that chose what is done with the path, Action what is done.
	Route, Action Note
	Does          Does
	// Bytes: the port passes on bytes, whatever they are, and knows no requests.
	Bytes  bool
	Status int    // of Returns
	To     string // of a redirect
	// Scheme is the protocol to the backends: http, https, ws, wss, tcp, fastcgi, …
	Scheme   string
	Backends []Backend
	// Upgrade tells whether a WebSocket upgrade is forwarded, Why what is missing.
	Upgrade Tri
	Why     []Note
	// Remedy mends it, in the server's own words.
	Remedy string
	// Idle is after how long without a byte the connection is cut, 0 for not known.
	Idle     time.Duration
	IdleFrom Note
	// Unsure is what the answer turns on besides, "" for nothing: then it is no
	// more than likely.
	Unsure []Note
}

// Config is a configuration as it was read.
type Config struct {
	Program string // nginx, apache, haproxy, caddy
	PID     int
	Main    string // the first file
	// Files are those that were opened, sorted.
	Files []string
	// Changed is when the newest file or directory of it was changed, Newest its
	// name.
	Changed time.Time
	Newest  string
	// Loaded is when the server read it, as far as its processes tell.
	Loaded time.Time
	// Gaps are what of it could not be read or understood: then nothing can be
	// concluded from what it does not say.
	Gaps []string

	ask func(Query) (Answer, bool)
}

// Stale tells that a file was changed after the server read it.
func (c *Config) Stale() bool { return c.Changed.After(c.Loaded) }

// Ask answers for a request; ok is false where the configuration does not open
// the port.
func (c *Config) Ask(q Query) (a Answer, ok bool) {
	if c.ask == nil {
		return Answer{}, false
	}
	q.Path = cmpOr(q.Path, "/")
	q.Host = strings.TrimSuffix(strings.ToLower(q.Host), ".")
	return c.ask(q)
}

// ReadLimit is the deadline of reading a configuration.
const ReadLimit = 3 * time.Second

// startSlack is what a start in clock ticks may be too early.
const startSlack = 20 * time.Millisecond

// programs are the servers that are read, by the names of their processes.
var programs = []struct {
	name  string
	comms []string
	read  func(*tree, *Config, invocation) error
}{
	{"nginx", []string{"nginx", "openresty"}, readNginx},
	{"haproxy", []string{"haproxy"}, readHAProxy},
	{"apache", []string{"apache2", "httpd"}, readApache},
}

// Known names the server behind the processes of a listener, "" for none that is
// read.
func Known(ps []Process) string {
	for _, prog := range programs {
		if slices.ContainsFunc(ps, func(p Process) bool { return slices.Contains(prog.comms, p.Name) }) {
			return prog.name
		}
	}
	return ""
}

// invocation is how a server was started.
type invocation struct {
	args []string // with the program's name
	cwd  string
	env  map[string]string
}

// program is the path it was started by.
func (v invocation) program() string {
	if len(v.args) == 0 {
		return ""
	}
	return v.args[0]
}

// flag gives the values of options that take one: -c FILE, -cFILE, --config=FILE.
func (v invocation) flag(names ...string) []string {
	var out []string
	for i, a := range v.args {
		for _, n := range names {
			switch {
			case a == n && i+1 < len(v.args):
				out = append(out, v.args[i+1])
			case strings.HasPrefix(n, "--") && strings.HasPrefix(a, n+"="):
				out = append(out, a[len(n)+1:])
			case !strings.HasPrefix(n, "--") && len(a) > len(n) && strings.HasPrefix(a, n):
				out = append(out, a[len(n):])
			}
		}
	}
	return out
}

// Read reads the configuration that the processes of a listener run with. It
// returns in ReadLimit; what could not be read is a gap of the result. boot is
// when the host booted, which the processes' start times count from.
func Read(ctx context.Context, ps []Process, boot time.Time) *Config {
	ctx, cancel := context.WithTimeout(ctx, ReadLimit)
	defer cancel()
	done := make(chan *Config, 1)
	go func() { done <- read(ctx, ps, boot) }() // a file system that hangs holds nobody up
	select {
	case c := <-done:
		return c
	case <-ctx.Done():
		return &Config{Program: Known(ps), Gaps: []string{"it was not read in time: " + context.Cause(ctx).Error()}}
	}
}

func read(ctx context.Context, ps []Process, boot time.Time) *Config {
	c := &Config{Program: Known(ps)}
	for _, prog := range programs {
		if prog.name != c.Program {
			continue
		}
		ps = slices.DeleteFunc(slices.Clone(ps), func(p Process) bool { return !slices.Contains(prog.comms, p.Name) })
		slices.SortStableFunc(ps, func(a, b Process) int { return int(min(max(int64(a.Start)-int64(b.Start), -1), 1)) }) //nolint:gosec // ticks
		p := ps[0]
		c.PID = p.PID
		if p.Start != 0 && startOf(p.PID) != p.Start {
			c.gap(errors.New("its process has ended meanwhile"))
			return c
		}
		c.Loaded = boot.Add(time.Duration(loadedAt(prog.name, ps)) * 10 * time.Millisecond).Add(startSlack) //nolint:gosec // ticks since boot
		dir := fmt.Sprintf("/proc/%d", c.PID)
		v := invocation{args: arguments(p.Command), env: map[string]string{}}
		var err error
		if v.cwd, err = os.Readlink(dir + "/cwd"); err != nil {
			v.cwd = "/"
		}
		if b, err := readUpTo(dir+"/environ", maxFileBytes); err == nil {
			for kv := range strings.SplitSeq(string(b), "\x00") {
				if k, x, ok := strings.Cut(kv, "="); ok {
					v.env[k] = x
				}
			}
		}
		var first error
		for _, root := range roots(c.PID) {
			t, err := openTree(ctx, root)
			if err == nil {
				err = prog.read(t, c, v)
				c.Changed, c.Newest, c.Files = t.changed, t.newest, slices.Sorted(maps.Keys(t.files))
				t.close()
			}
			if err == nil {
				return c
			}
			if first == nil {
				first = err
			}
			if !errors.Is(err, fs.ErrNotExist) {
				break
			}
		}
		c.gap(first)
	}
	return c
}

// roots are the directories that a server may have read its files in: its own
// root, that of its parent where it has gone into a jail since (chroot(2)), and
// this program's where both are of one mount namespace.
func roots(pid int) []string {
	own := fmt.Sprintf("/proc/%d", pid)
	out := []string{own + "/root"}
	if f := stat(pid); len(f) > 1 {
		parent := "/proc/" + f[1]
		a, _ := os.ReadFile(own + "/comm")
		if b, err := os.ReadFile(parent + "/comm"); err == nil && string(a) == string(b) {
			out = append(out, parent+"/root")
		}
	}
	a, err := os.Readlink(own + "/ns/mnt")
	if b, err2 := os.Readlink("/proc/self/ns/mnt"); err == nil && err2 == nil && a == b {
		out = append(out, "/")
	}
	return out
}

// stat are the fields of /proc/PID/stat behind the name: state, parent, …, none for
// a process that is not there.
func stat(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
}

// startOf is Process.Start of whoever has the number now, 0 for nobody.
func startOf(pid int) uint64 {
	const start = 22 - 3 // as proc(5) counts, from the state on
	f := stat(pid)
	if len(f) <= start {
		return 0
	}
	n, err := strconv.ParseUint(f[start], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (c *Config) gap(err error) {
	if s := err.Error(); !slices.Contains(c.Gaps, s) && len(c.Gaps) < 20 {
		c.Gaps = append(c.Gaps, s)
	}
}

// loadedAt is when the configuration was read, in ticks after boot. nginx and
// HAProxy start new workers with a configuration they reload, and the old ones
// let go of the sockets; elsewhere children come and go by themselves.
func loadedAt(program string, ps []Process) uint64 {
	at := ps[0].Start
	switch program {
	case "nginx":
		first := uint64(0)
		for _, p := range ps {
			if strings.Contains(p.Command, "worker process") && (first == 0 || p.Start < first) {
				first = p.Start
			}
		}
		at = max(at, first)
	case "haproxy":
		at = ps[len(ps)-1].Start
	}
	return at
}

// arguments takes a command line apart, and the title that nginx makes of its
// own: "nginx: master process /usr/sbin/nginx -c FILE".
func arguments(command string) []string {
	command = strings.TrimRight(command, "\x00 ")
	if _, rest, ok := strings.Cut(command, "nginx: master process "); ok {
		return strings.Fields(strings.ReplaceAll(rest, "\x00", " "))
	}
	return strings.Split(command, "\x00")
}

// readUpTo reads the beginning of a file of /proc, whose length its process may
// choose (prctl(2), PR_SET_MM).
func readUpTo(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// firstOf gives the first name that leads to a file.
func (t *tree) firstOf(names ...string) (string, error) {
	for _, n := range names {
		if dir, there := t.is(n); there && !dir {
			return n, nil
		}
	}
	return "", fmt.Errorf("its configuration file is in none of the usual places: %s: %w", strings.Join(names, ", "), fs.ErrNotExist)
}

// below makes a name absolute, beginning at a directory.
func below(dir, name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join("/", dir, name)
}

// within says where an error stands.
func within(p Place, err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%s: %w", p, err)
}
