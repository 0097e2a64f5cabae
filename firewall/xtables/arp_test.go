package xtables_test

import (
	"encoding/binary"
	"syscall"
	"testing"
	"unsafe"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/xtables"
)

// TestARPTables: a legacy ARP table that drops is seen, one that only exists is
// not, and looking makes none.
func TestARPTables(t *testing.T) {
	n := lab.New(t, lab.Topology{}).Server
	read := func() string {
		t.Helper()
		var names []byte
		var err error
		n.Do(func() { names, err = xtables.ARPTables() })
		if err != nil {
			t.Fatal(err)
		}
		return string(names)
	}
	listed := func() string {
		b, err := n.ReadFile("/proc/thread-self/net/arp_tables_names")
		if err != nil {
			t.Skipf("SKIPPED: this kernel has no arp_tables: %v", err)
		}
		return string(b)
	}
	if before, names := listed(), read(); before != "" || names != "" || listed() != "" {
		t.Fatalf("tables %q before, %q read, %q after", before, names, listed())
	}
	n.Do(func() { policyOfARP(t, false) })
	if names := read(); listed() != "filter\n" || names != "" {
		t.Errorf("%q exists and lets everything pass, %q read", listed(), names)
	}
	n.Do(func() { policyOfARP(t, true) })
	if names := read(); names != "filter\n" {
		t.Errorf("%q read of a table that drops", names)
	}
	if tb := xtables.ARPTable([]byte("filter\n")); tb == nil || tb.Family != firewall.TableARP || len(tb.Chains) != 2 || tb.Chains[0].Unread == "" {
		t.Errorf("the table: %+v", tb)
	}
	if tb := xtables.ARPTable(nil); tb != nil {
		t.Errorf("a table of nothing: %+v", tb)
	}
}

// policyOfARP makes the legacy ARP table of the calling thread's namespace by asking
// for it, and has its first chain drop.
func policyOfARP(t *testing.T, drop bool) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	call := func(nr uintptr, opt int, b []byte, n uintptr) {
		t.Helper()
		if _, _, errno := syscall.Syscall6(nr, uintptr(fd), syscall.IPPROTO_IP, uintptr(opt), uintptr(unsafe.Pointer(&b[0])), n, 0); errno != 0 {
			t.Fatalf("option %d: %v", opt, errno)
		}
	}
	info := make([]byte, 68)
	copy(info, "filter")
	length := uint32(len(info))
	call(syscall.SYS_GETSOCKOPT, 96, info, uintptr(unsafe.Pointer(&length)))
	if !drop {
		return
	}
	size := binary.NativeEndian.Uint32(info[64:])
	entries := make([]byte, 40+size)
	copy(entries, "filter")
	binary.NativeEndian.PutUint32(entries[32:], size)
	length = uint32(len(entries))
	call(syscall.SYS_GETSOCKOPT, 97, entries, uintptr(unsafe.Pointer(&length)))
	entries = entries[40:]
	binary.NativeEndian.PutUint32(entries[192+32:], 0xffffffff) // -NF_DROP - 1
	// struct arpt_replace: name, valid_hooks, num_entries, size, hook_entry,
	// underflow, num_counters, counters, entries.
	replace := make([]byte, 88, 88+len(entries))
	copy(replace, "filter")
	copy(replace[32:36], info[32:36])
	copy(replace[36:40], info[60:64])
	copy(replace[40:44], info[64:68])
	copy(replace[44:68], info[36:60])
	of := binary.NativeEndian.Uint32(info[60:])
	counters := make([]byte, 16*of)
	binary.NativeEndian.PutUint32(replace[68:], of)
	binary.NativeEndian.PutUint64(replace[72:], uint64(uintptr(unsafe.Pointer(&counters[0]))))
	replace = append(replace[:80], entries...)
	call(syscall.SYS_SETSOCKOPT, 96, replace, uintptr(len(replace)))
}
