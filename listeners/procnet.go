package listeners

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hostaudit/hostaudit/listeners/sockdiag"
)

func addrPort(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// parseProtocols reads /proc/net/protocols: the number of sockets in this
// namespace by protocol name (net/core/sock.c, proto_seq_printf).
func parseProtocols(b []byte) (map[string]int, error) {
	counts := map[string]int{}
	for i, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if i == 0 || len(f) == 0 {
			if i == 0 && (len(f) < 3 || f[0] != "protocol" || f[2] != "sockets") {
				return nil, errors.New("parse /proc/net/protocols: unknown heading")
			}
			continue
		}
		if len(f) < 3 {
			return nil, fmt.Errorf("parse /proc/net/protocols: line %d has %d fields", i+1, len(f))
		}
		n, err := strconv.Atoi(f[2])
		if err != nil {
			return nil, fmt.Errorf("parse /proc/net/protocols: line %d: %w", i+1, err)
		}
		counts[f[0]] = n
	}
	if len(counts) == 0 {
		return nil, errors.New("parse /proc/net/protocols: empty")
	}
	return counts, nil
}

// procFiles reads listeners from the text tables. They lack IPV6_V6ONLY, bound
// devices, limits, marks and cgroups; each socket says so in Untold.
func (r *reader) procFiles(ctx context.Context, proto Proto, p plan) ([]Socket, error) {
	var socks []Socket
	read := 0
	var missing error
	for _, name := range p.files {
		b, err := r.src.NetFile(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			missing = err // a kernel without IPv6 has no tcp6
			continue
		}
		if err != nil {
			return socks, err
		}
		read++
		var s []Socket
		if name == "sctp/eps" {
			s, err = parseSCTPEndpoints(b)
		} else {
			s, err = parseNetTable(b, proto, p.states, r.order)
		}
		socks = append(socks, s...)
		if err != nil {
			return socks, fmt.Errorf("parse /proc/net/%s: %w", name, err)
		}
	}
	if read == 0 {
		return nil, missing
	}
	return socks, nil
}

// netRow is one line of /proc/net/{tcp,udp,udplite,raw}{,6}.
type netRow struct {
	local, remote netip.AddrPort
	state         sockdiag.State
	send, recv    uint32
	uid, inode    uint32
	drops         *uint32
}

// parseNetTable reads the listening sockets of a text table
// (tcp4_seq_show, udp4_format_sock, raw_sock_seq_show and their IPv6 twins).
func parseNetTable(b []byte, proto Proto, states sockdiag.States, order binary.ByteOrder) ([]Socket, error) {
	var socks []Socket
	lineNo := 0
	for line := range bytes.Lines(b) {
		lineNo++
		if lineNo == 1 || len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		row, err := parseNetRow(line, proto.Datagram(), order)
		if err != nil {
			return socks, fmt.Errorf("line %d: %w", lineNo, err)
		}
		if states&(1<<row.state) == 0 {
			continue
		}
		s := Socket{
			Proto: proto, Local: row.local, Accept: Queue{Len: row.recv, Drops: row.drops}, UID: row.uid, Inode: row.inode,
			Untold: []string{FactDevice, FactLimit, FactMark, FactCgroup, FactOpts},
		}
		if row.local.Addr().Is6() {
			s.Untold = append([]string{FactV6Only}, s.Untold...)
		}
		socks = append(socks, s)
	}
	if lineNo == 0 {
		return nil, errors.New("empty, not even a heading")
	}
	return socks, nil
}

// parseNetRow: sl local rem st tx:rx tr:tm retrnsmt uid timeout inode [ref pointer drops].
func parseNetRow(line []byte, datagram bool, order binary.ByteOrder) (row netRow, err error) {
	f := bytes.Fields(line)
	if len(f) < 10 {
		return row, fmt.Errorf("%d fields, want 10", len(f))
	}
	if row.local, err = parseHexAddr(f[1], order); err != nil {
		return row, err
	}
	if row.remote, err = parseHexAddr(f[2], order); err != nil {
		return row, err
	}
	state, err := strconv.ParseUint(string(f[3]), 16, 8)
	if err != nil || state > 31 {
		return row, fmt.Errorf("state %q", f[3])
	}
	row.state = sockdiag.State(state)
	tx, rx, ok := bytes.Cut(f[4], []byte(":"))
	if !ok {
		return row, fmt.Errorf("queues %q", f[4])
	}
	if row.send, err = parseUint32(tx, 16); err != nil {
		return row, err
	}
	if row.recv, err = parseUint32(rx, 16); err != nil {
		return row, err
	}
	if row.uid, err = parseUint32(f[7], 10); err != nil {
		return row, err
	}
	if row.inode, err = parseUint32(f[9], 10); err != nil {
		return row, err
	}
	if datagram && len(f) >= 13 {
		d, err := parseUint32(f[12], 10)
		if err != nil {
			return row, err
		}
		row.drops = &d
	}
	return row, nil
}

func parseUint32(b []byte, base int) (uint32, error) {
	n, err := strconv.ParseUint(string(b), base, 32)
	if err != nil {
		return 0, fmt.Errorf("number %q", b)
	}
	return uint32(n), nil
}

// parseHexAddr reads "0100007F:1F90": 32-bit words as the machine stores them,
// so on a little-endian one the bytes of each word are reversed. The port is
// printed as a number.
func parseHexAddr(b []byte, order binary.ByteOrder) (netip.AddrPort, error) {
	host, port, ok := bytes.Cut(b, []byte(":"))
	if !ok || len(host) != 8 && len(host) != 32 {
		return netip.AddrPort{}, fmt.Errorf("address %q", b)
	}
	var raw [16]byte
	n, err := hex.Decode(raw[:], host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address %q: %w", b, err)
	}
	for i := 0; i < n; i += 4 {
		order.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	p, err := strconv.ParseUint(string(port), 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port %q", b)
	}
	if n == 4 {
		return addrPort(netip.AddrFrom4([4]byte(raw[:4])), uint16(p)), nil
	}
	return addrPort(netip.AddrFrom16(raw), uint16(p)), nil
}

// sctpListening is SCTP_SS_LISTENING, which is TCP_LISTEN.
const sctpListening = "10"

// parseSCTPEndpoints reads /proc/net/sctp/eps (net/sctp/proc.c):
// ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS.
func parseSCTPEndpoints(b []byte) ([]Socket, error) {
	var socks []Socket
	for i, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if i == 0 {
			if len(f) < 9 || f[3] != "SST" || f[5] != "LPORT" || f[7] != "INODE" {
				return nil, errors.New("unknown heading")
			}
			continue
		}
		if len(f) < 8 {
			return socks, fmt.Errorf("line %d has %d fields", i+1, len(f))
		}
		if f[3] != sctpListening {
			continue
		}
		port, err := strconv.ParseUint(f[5], 10, 16)
		if err != nil {
			return socks, fmt.Errorf("line %d: port: %w", i+1, err)
		}
		uid, err := parseUint32([]byte(f[6]), 10)
		if err != nil {
			return socks, fmt.Errorf("line %d: %w", i+1, err)
		}
		inode, err := parseUint32([]byte(f[7]), 10)
		if err != nil {
			return socks, fmt.Errorf("line %d: %w", i+1, err)
		}
		s := Socket{Proto: SCTP, UID: uid, Inode: inode, Untold: []string{FactV6Only, FactDevice, FactLimit, FactMark, FactCgroup, FactOpts}}
		for _, text := range f[8:] {
			a, err := netip.ParseAddr(strings.TrimPrefix(text, "*"))
			if err != nil {
				return socks, fmt.Errorf("line %d: %w", i+1, err)
			}
			s.Locals = append(s.Locals, a)
		}
		s.Local = addrPort(netip.IPv4Unspecified(), uint16(port))
		if len(s.Locals) > 0 {
			s.Local = addrPort(s.Locals[0], uint16(port))
		}
		s.Locals = specific(s.Locals)
		socks = append(socks, s)
	}
	return socks, nil
}

// specific gives the addresses of an endpoint, nil where one is a wildcard.
func specific(addrs []netip.Addr) []netip.Addr {
	for _, a := range addrs {
		if a.IsUnspecified() {
			return nil
		}
	}
	return addrs
}
