package listeners

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// PortSet is a set of ports.
type PortSet [1 << 16 / 64]uint64

// Add puts a port into the set.
func (s *PortSet) Add(port uint16) { s[port/64] |= 1 << (port % 64) }

func (s *PortSet) empty() bool { return *s == PortSet{} }

func (s *PortSet) remove(port uint16) { s[port/64] &^= 1 << (port % 64) }

// Has tells whether the port is in the set.
func (s *PortSet) Has(port uint16) bool { return s[port/64]>>(port%64)&1 != 0 }

// Count gives the number of ports.
func (s *PortSet) Count() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// countFrom gives the number of ports of the same parity as port.
func (s *PortSet) countFrom(port uint16) int {
	const even = 0x5555555555555555
	mask := uint64(even) << (port % 2)
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w & mask)
	}
	return n
}

// PortSettings are the settings that decide which local ports connect(2) may
// choose (Documentation/networking/ip-sysctl.rst). IPv4 and IPv6 share them.
type PortSettings struct {
	Low      uint16 `json:"low"` // net.ipv4.ip_local_port_range
	High     uint16 `json:"high"`
	Reserved string `json:"reserved"` // net.ipv4.ip_local_reserved_ports, "8080,9148-9150"
}

// Valid tells that the range is one.
func (p PortSettings) Valid() bool { return p.Low != 0 && p.Low <= p.High }

// ReadPortSettings reads them for the calling thread's network namespace. proc
// is where procfs is mounted, "" means /proc.
func ReadPortSettings(ctx context.Context, proc string) (PortSettings, error) {
	if proc == "" {
		proc = "/proc"
	}
	if err := ctx.Err(); err != nil {
		return PortSettings{}, fmt.Errorf("read port settings: %w", err)
	}
	read := func(key string) (string, error) {
		f, err := os.Open(filepath.Join(proc, "sys/net/ipv4", key))
		if err != nil {
			return "", fmt.Errorf("read net.ipv4.%s: %w", key, err)
		}
		defer f.Close()
		for b := make([]byte, 4<<10); len(b) <= 1<<20; b = make([]byte, 4*len(b)) {
			n, err := f.ReadAt(b, 0)
			if err == io.EOF {
				return strings.TrimSpace(string(b[:n])), nil
			}
			if err != nil {
				return "", fmt.Errorf("read net.ipv4.%s: %w", key, err)
			}
			// What has no room the kernel cuts off, for good (proc_do_large_bitmap
			// gives nothing from an offset): it is read anew, with more room.
		}
		return "", fmt.Errorf("read net.ipv4.%s: longer than a megabyte", key)
	}
	text, err1 := read("ip_local_port_range")
	reserved, err2 := read("ip_local_reserved_ports")
	if err := errors.Join(err1, err2); err != nil {
		return PortSettings{}, err
	}
	return ParsePortSettings(text, reserved)
}

// ParsePortSettings takes the two values as the kernel prints them.
func ParsePortSettings(portRange, reserved string) (PortSettings, error) {
	f := strings.Fields(portRange)
	if len(f) != 2 {
		return PortSettings{}, fmt.Errorf("parse net.ipv4.ip_local_port_range: %q", portRange)
	}
	low, err1 := strconv.ParseUint(f[0], 10, 16)
	high, err2 := strconv.ParseUint(f[1], 10, 16)
	if err := errors.Join(err1, err2); err != nil {
		return PortSettings{}, fmt.Errorf("parse net.ipv4.ip_local_port_range: %w", err)
	}
	p := PortSettings{Low: uint16(low), High: uint16(high), Reserved: strings.TrimSpace(reserved)}
	if !p.Valid() {
		return p, fmt.Errorf("parse net.ipv4.ip_local_port_range: %q is no range", portRange)
	}
	_, err := ParsePortSet(p.Reserved)
	return p, err
}

// ParsePortSet reads the kernel's list format: "1,2-4,10-10", "" for none.
func ParsePortSet(text string) (*PortSet, error) {
	var s PortSet
	text = strings.TrimSpace(text)
	if text == "" {
		return &s, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		from, to, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			to = from
		}
		low, err1 := strconv.ParseUint(from, 10, 16)
		high, err2 := strconv.ParseUint(to, 10, 16)
		if err := errors.Join(err1, err2); err != nil || low > high {
			return nil, fmt.Errorf("parse port list: %q", part)
		}
		s.addRange(uint16(low), uint16(high))
	}
	return &s, nil
}

// HeadRoom is what the settings leave for connect(2) to choose from.
type HeadRoom struct {
	Range    int `json:"range"`    // ports in the range
	Reserved int `json:"reserved"` // of those, kept out by ip_local_reserved_ports
	// Taken counts those with a bound socket (listeners above all): the kernel
	// passes over a port with any bound socket for every destination.
	Taken  int `json:"taken"`
	Usable int `json:"usable"` // what is left for each destination
	// FirstHalf is the part of Usable that connect(2) tries first: ports of the
	// parity of Low. Past it every connect walks the other half as well, and its
	// price rises tenfold (facts measured on Linux 6.18).
	FirstHalf int `json:"first_half"`
}

// HeadRoom computes it for ports on which sockets are bound.
func (p PortSettings) HeadRoom(bound *PortSet) (HeadRoom, error) {
	reserved, err := ParsePortSet(p.Reserved)
	if err != nil {
		return HeadRoom{}, err
	}
	if bound == nil {
		bound = &PortSet{}
	}
	var inRange, usable PortSet
	inRange.addRange(p.Low, p.High)
	for i := range inRange {
		reserved[i] &= inRange[i]
		usable[i] = inRange[i] &^ reserved[i] &^ bound[i]
	}
	h := HeadRoom{Range: inRange.Count(), Reserved: reserved.Count(), Usable: usable.Count(), FirstHalf: usable.countFrom(p.Low)}
	h.Taken = h.Range - h.Reserved - h.Usable
	return h, nil
}

// addRange puts the ports from low to high into the set.
func (s *PortSet) addRange(low, high uint16) {
	for port := int(low); port <= int(high); port++ {
		if port%64 == 0 && port+63 <= int(high) {
			s[port/64] = math.MaxUint64
			port += 63
			continue
		}
		s.Add(uint16(port))
	}
}

// BoundPorts gives the ports with listeners of a protocol; for TCP those of
// MPTCP as well.
func (t *Table) BoundPorts(proto Proto) *PortSet {
	var s PortSet
	for i := range t.Listeners {
		l := &t.Listeners[i]
		if l.Proto == proto || proto == TCP && l.Proto == MPTCP {
			s.Add(l.Port())
		}
	}
	return &s
}
