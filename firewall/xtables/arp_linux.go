package xtables

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"github.com/hostaudit/hostaudit/firewall"
)

// The options and structs of arp_tables
// (include/uapi/linux/netfilter_arp/arp_tables.h).
const (
	arptGetInfo    = 96 // ARPT_SO_GET_INFO
	arptGetEntries = 97 // ARPT_SO_GET_ENTRIES
	arptInfoSize   = 68 // struct arpt_getinfo
	arptInfoSizeAt = 64
	arptEntrySize  = 192 // struct arpt_entry without elems
	arptTargetAt   = 164 // target_offset, next_offset
	arptNameSize   = 32

	verdictAccept = -2 // -NF_ACCEPT - 1
)

// ARPTables names the tables of arptables-legacy in the calling thread's network
// namespace that hold a rule or a policy other than ACCEPT, a name and a line feed
// each. A table that does not exist is not asked for, which would make it.
func ARPTables() ([]byte, error) {
	names, err := readNames("/proc/thread-self/net/arp_tables_names")
	if errors.Is(err, ErrNotPresent) || err == nil && len(names) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &Error{"list", "tables of arp", err}
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, &Error{"open", "arp_tables", err}
	}
	defer syscall.Close(fd)
	var out bytes.Buffer
	for name := range bytes.Lines(names) {
		name = bytes.TrimSuffix(name, []byte("\n"))
		if idle, err := arpIdle(fd, name); err != nil || !idle { // what cannot be read may hold anything
			fmt.Fprintf(&out, "%s\n", name)
		}
	}
	return out.Bytes(), nil
}

// arpIdle reports whether a table lets everything pass by its policies alone.
func arpIdle(fd int, name []byte) (bool, error) {
	info := make([]byte, arptInfoSize)
	copy(info[:arptNameSize-1], name)
	if err := getOption(fd, arptGetInfo, info); err != nil {
		return false, err
	}
	size := binary.NativeEndian.Uint32(info[arptInfoSizeAt:])
	if size > maxEntries {
		return false, &Error{"read", object(firewall.TableARP, string(name)), fmt.Errorf("%d bytes of entries", size)}
	}
	b := make([]byte, getEntrySize+int(size))
	copy(b[:arptNameSize-1], name)
	binary.NativeEndian.PutUint32(b[arptNameSize:], size)
	if err := getOption(fd, arptGetEntries, b); err != nil {
		return false, err
	}
	for b = b[getEntrySize:]; len(b) > 0; {
		if len(b) < arptEntrySize {
			return false, nil
		}
		target, next := int(binary.NativeEndian.Uint16(b[arptTargetAt:])), int(binary.NativeEndian.Uint16(b[arptTargetAt+2:]))
		if target < arptEntrySize || next < target+36 || next > len(b) {
			return false, nil
		}
		t := b[target:next]
		last := next == len(b) && cstring(t[2:31]) == "ERROR"
		if !last && (cstring(t[2:31]) != "" || int32(binary.NativeEndian.Uint32(t[32:])) != verdictAccept) {
			return false, nil
		}
		b = b[next:]
	}
	return true, nil
}

func getOption(fd, opt int, b []byte) error {
	n := uint32(len(b))
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), syscall.IPPROTO_IP, uintptr(opt),
			uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
		switch {
		case errno == syscall.EINTR:
			continue
		case errno != 0:
			return errno
		case int(n) != len(b):
			return fmt.Errorf("%d of %d bytes came back", n, len(b))
		}
		return nil
	}
}

// ARPTable stands for the tables of arptables-legacy, of what ARPTables gave: their
// rules are not read, and may do anything with an ARP message. nil: there are none.
func ARPTable(names []byte) *firewall.Table {
	name := cstring(bytes.ReplaceAll(bytes.TrimSpace(names), []byte("\n"), []byte(", ")))
	if name == "" {
		return nil
	}
	t := &firewall.Table{Backend: firewall.IPTablesLegacy, Family: firewall.TableARP, Name: name}
	for _, h := range []firewall.Hook{firewall.Input, firewall.Output} {
		t.Chains = append(t.Chains, &firewall.Chain{Table: t, Name: chainNames[h], Unread: "the rules of arptables-legacy are not read",
			Base: &firewall.Base{Hook: h, Policy: firewall.Accept}})
	}
	return t
}
