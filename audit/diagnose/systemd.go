package diagnose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// Bounds of asking systemd.
const (
	systemdLimit = 10 * time.Second
	maxFromBus   = 32 << 20 // bytes of answers; a host with ten thousand units lists them in 3 MB
)

// bus is a connection to systemd, over which only questions go.
type bus struct{ conn *systemd.Conn }

// errNoSystemd: systemd is not what runs this host, as in most containers.
var errNoSystemd = errors.New("systemd does not run here")

// openBus connects to the systemd whose files lie below root: to its private
// socket, which serves root alone and without a message bus, else to the system
// bus. It tells first as sd_booted(3) does whether it runs at all; so nothing is
// started by asking.
func openBus(ctx context.Context, root string) (*bus, error) {
	r, err := openRoot(root)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if st, err := r.Lstat("run/systemd/system"); err != nil || !st.IsDir() {
		return nil, errNoSystemd
	}
	var errs []error
	for _, way := range []struct {
		dir, socket string
		hello       bool
	}{{"run/systemd", "private", false}, {"run/dbus", "system_bus_socket", true}} {
		conn, err := systemd.NewConnection(func() (*dbus.Conn, error) { return dialBus(ctx, r, way.dir, way.socket, way.hello) })
		if err == nil {
			return &bus{conn}, nil
		}
		errs = append(errs, fmt.Errorf("connect to /%s/%s: %w", way.dir, way.socket, err))
	}
	return nil, errors.Join(errs...)
}

// dialBus connects to a socket in a directory of the root: links are followed
// inside of it alone.
func dialBus(ctx context.Context, r *os.Root, dir, socket string, hello bool) (*dbus.Conn, error) {
	sub, err := r.OpenRoot(dir)
	if err != nil {
		return nil, cause(err)
	}
	defer sub.Close()
	st, err := sub.Lstat(socket)
	if err != nil {
		return nil, cause(err)
	}
	if st.Mode().Type() != fs.ModeSocket {
		return nil, errors.New("is no socket")
	}
	d, err := sub.Open(".")
	if err != nil {
		return nil, cause(err)
	}
	defer d.Close()
	// By way of the directory's descriptor a long path fits into an address.
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socket))
	if err != nil {
		return nil, cause(err)
	}
	if end, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(end); err != nil {
			c.Close()
			return nil, err
		}
	}
	conn, err := dbus.NewConn(&bounded{Conn: c, left: maxFromBus}, dbus.WithContext(ctx))
	if err != nil {
		c.Close()
		return nil, err
	}
	if err = conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err == nil && hello {
		err = conn.Hello()
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			err = errors.New("no answer in time")
		}
		return nil, err
	}
	return conn, nil
}

// cause is an error without the path, which is a descriptor's or is said already.
func cause(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err
	}
	if call := (*os.SyscallError)(nil); errors.As(err, &call) {
		return call.Err
	}
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}

// bounded ends a connection that says too much.
type bounded struct {
	net.Conn
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func (b *bus) Close() { b.conn.Close() }

// property are the properties of a unit as the library decodes them; what is not
// there, or of another type, reads as zero.
type property map[string]any

func get[T any](p property, name string) T {
	v, _ := p[name].(T)
	return v
}

// clock is a time by the calendar, in microseconds; zero for never.
func (p property) clock(name string) time.Time {
	n := get[uint64](p, name)
	if n == 0 || n > 1<<62 {
		return time.Time{}
	}
	return time.UnixMicro(int64(n)).UTC()
}

// sinceBoot is a time on the clock that began with the boot, 0 for never.
func (p property) sinceBoot(name string) time.Duration {
	n := get[uint64](p, name)
	if n > uint64(1<<63-1)/1000 {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// structs are an array of structures.
func (p property) structs(name string) [][]any { return get[[][]any](p, name) }

func field_[T any](s []any, i int) T {
	var zero T
	if i >= len(s) {
		return zero
	}
	v, ok := s[i].(T)
	if !ok {
		return zero
	}
	return v
}

// unit asks about one unit, which systemd reads from disk if it must (as
// systemctl show does).
func (b *bus) unit(ctx context.Context, name string) (*UnitState, error) {
	all, err := b.conn.GetAllPropertiesContext(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("ask systemd about %s: %w", name, err)
	}
	return unitState(property(all)), nil
}

// unitState takes what is told of out of org.freedesktop.systemd1(5).
func unitState(p property) *UnitState {
	u := &UnitState{
		ID: get[string](p, "Id"), Load: get[string](p, "LoadState"), Active: get[string](p, "ActiveState"), Sub: get[string](p, "SubState"), Result: get[string](p, "Result"),
		File: get[string](p, "UnitFileState"), Fragment: get[string](p, "FragmentPath"),
		Code: get[int32](p, "ExecMainCode"), Status: get[int32](p, "ExecMainStatus"), PID: int(get[uint32](p, "ExecMainPID")),
		Started: p.clock("ExecMainStartTimestamp"), StartedAt: p.sinceBoot("ExecMainStartTimestampMonotonic"), Ended: p.clock("ExecMainExitTimestamp"), EndedAt: p.sinceBoot("ExecMainExitTimestampMonotonic"),
		Changed: p.clock("StateChangeTimestamp"), Inactive: p.clock("InactiveEnterTimestamp"),
		Restarts: get[uint32](p, "NRestarts"), Restart: get[string](p, "Restart"), Type: get[string](p, "Type"),
		Burst: get[uint32](p, "StartLimitBurst"), BurstOver: p.sinceBoot("StartLimitIntervalUSec"), StartTimeout: p.sinceBoot("TimeoutStartUSec"),
		MemoryMax: get[uint64](p, "MemoryMax"), Requires: append(append(get[[]string](p, "Requires"), get[[]string](p, "Requisite")...), get[[]string](p, "BindsTo")...),
		TriggeredBy: get[[]string](p, "TriggeredBy"), Triggers: get[[]string](p, "Triggers"), PIDFile: get[string](p, "PIDFile"), Environment: get[[]string](p, "Environment"),
	}
	if l := get[uint64](p, "MemoryLimit"); l < u.MemoryMax {
		u.MemoryMax = l // version 1 of control groups
	}
	if e := get[[]any](p, "LoadError"); len(e) == 2 {
		u.LoadError = field_[string](e, 1)
	}
	if job := get[[]any](p, "Job"); len(job) == 2 {
		u.Queued = field_[uint32](job, 0) != 0
	}
	if at := p.clock("ConditionTimestamp"); !at.IsZero() && !get[bool](p, "ConditionResult") {
		u.Unmet, u.UnmetAt = unmet(p.structs("Conditions"), "Condition"), at
	} else if at := p.clock("AssertTimestamp"); !at.IsZero() && !get[bool](p, "AssertResult") {
		u.Unmet, u.UnmetAt = unmet(p.structs("Asserts"), "Assert"), at
	}
	for _, l := range p.structs("Listen") { // (type, address)
		u.Listen = append(u.Listen, field_[string](l, 0)+" "+field_[string](l, 1))
	}
	for _, name := range []string{"ExecCondition", "ExecStartPre", "ExecStart", "ExecStartPost"} {
		for _, x := range p.structs(name) { // (path, argv, ignore, started, …, ended, …, pid, code, status)
			r := Ran{As: name, Path: field_[string](x, 0), Argv: field_[[]string](x, 1), Code: field_[int32](x, 8), Status: field_[int32](x, 9)}
			if ended := field_[uint64](x, 5); ended > 0 && ended < 1<<62 {
				r.Ended = time.UnixMicro(int64(ended)).UTC()
			}
			u.Ran = append(u.Ran, r)
		}
	}
	return u
}

// unmet names the first condition that does not hold: (type, "or", negated,
// parameter, state).
func unmet(conditions [][]any, prefix string) string {
	first := ""
	for _, c := range conditions {
		kind := field_[string](c, 0)
		if len(kind) > 40 || field_[int32](c, 4) >= 0 {
			continue
		}
		not := ""
		if field_[bool](c, 2) {
			not = "!"
		}
		first = kind + "=" + not + field_[string](c, 3)
		break
	}
	if first == "" {
		return prefix + "…="
	}
	return first
}
