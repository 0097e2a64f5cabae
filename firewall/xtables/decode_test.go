package xtables

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/hostaudit/hostaudit/firewall"
)

// fakeSource answers from memory; its fields may fail.
type fakeSource struct {
	names    map[firewall.TableFamily]string
	namesErr error
	info     func(fam firewall.TableFamily, table string) ([]byte, error)
	entries  func(fam firewall.TableFamily, table string, size int) ([]byte, error)
}

func (f *fakeSource) Names(_ context.Context, fam firewall.TableFamily) ([]byte, error) {
	if f.namesErr != nil {
		return nil, f.namesErr
	}
	n, ok := f.names[fam]
	if !ok {
		return nil, ErrNotPresent
	}
	return []byte(n), nil
}

func (f *fakeSource) Info(_ context.Context, fam firewall.TableFamily, table string) ([]byte, error) {
	return f.info(fam, table)
}

func (f *fakeSource) Entries(_ context.Context, fam firewall.TableFamily, table string, size int) ([]byte, error) {
	return f.entries(fam, table, size)
}

// capture is a blob of the kernel: struct ipt_getinfo and entries.
func capture(t testing.TB, name string) (info, entries []byte) {
	t.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("SKIPPED: the blobs were recorded on a little-endian machine")
	}
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b[:84], b[84:]
}

// filterSource serves the recorded filter table of testdata.
func filterSource(t testing.TB) *fakeSource {
	t.Helper()
	info, entries := capture(t, "filter.ip.blob")
	return &fakeSource{
		names:   map[firewall.TableFamily]string{firewall.TableIP: "filter\n"},
		info:    func(firewall.TableFamily, string) ([]byte, error) { return info, nil },
		entries: func(firewall.TableFamily, string, int) ([]byte, error) { return entries, nil },
	}
}

func TestReadAgainWhenReplaced(t *testing.T) {
	src := filterSource(t)
	entries := src.entries
	tries := 0
	src.entries = func(fam firewall.TableFamily, table string, size int) ([]byte, error) {
		if tries++; tries < 4 {
			return nil, ErrChanged
		}
		return entries(fam, table, size)
	}
	tables, err := Read(t.Context(), src, nil)
	if err != nil || len(tables) != 1 || tries != 4 {
		t.Fatalf("%d tables after %d tries: %v", len(tables), tries, err)
	}
	src.entries = func(firewall.TableFamily, string, int) ([]byte, error) { return nil, ErrChanged }
	tables, err = Read(t.Context(), src, nil)
	if !errors.Is(err, ErrChanged) {
		t.Errorf("a table that never rests: %v", err)
	}
	unreadChains(t, tables)
}

// unreadChains checks that a table that could not be read is opaque.
func unreadChains(t *testing.T, tables []*firewall.Table) {
	t.Helper()
	if len(tables) != 1 || len(tables[0].Chains) != 3 {
		t.Fatalf("want the filter table with three chains, got %v", tables)
	}
	for _, c := range tables[0].Chains {
		if c.Unread == "" || c.Base == nil {
			t.Errorf("chain %s is not marked unread", c.Name)
		}
	}
}

func TestReadErrors(t *testing.T) {
	src := filterSource(t)
	src.info = func(firewall.TableFamily, string) ([]byte, error) {
		return nil, permission(&Error{"read", "table filter of ip", syscall.EPERM})
	}
	tables, err := Read(t.Context(), src, nil)
	if !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("EPERM: %v", err)
	}
	unreadChains(t, tables)

	src = filterSource(t)
	src.namesErr = &Error{"list", "tables of ip", syscall.EACCES}
	if tables, err := Read(t.Context(), src, nil); !errors.Is(err, syscall.EACCES) || tables != nil {
		t.Errorf("names that cannot be read: %v, %v", tables, err)
	}

	if tables, err := Read(t.Context(), &fakeSource{}, nil); err != nil || tables != nil {
		t.Errorf("no back end: %v, %v", tables, err)
	}

	src = filterSource(t)
	info := src.info
	src.info = func(fam firewall.TableFamily, table string) ([]byte, error) {
		if table != "filter" {
			t.Errorf("asked for table %q, which is not listed: that would make it", table)
		}
		return info(fam, table)
	}
	src.names[firewall.TableIP6] = ""
	if _, err := Read(t.Context(), src, nil); err != nil {
		t.Error(err)
	}
}

// TestTornBlobs cuts and changes a real table at every place: an error or a
// table, never a panic.
func TestTornBlobs(t *testing.T) {
	info, entries := capture(t, "filter.ip.blob")
	if _, err := DecodeTable(firewall.TableIP, "filter", info, entries, nil); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(entries); n += 7 {
		if _, err := DecodeTable(firewall.TableIP, "filter", info, entries[:n], nil); err == nil && n > 0 {
			t.Errorf("a blob cut at %d of %d bytes is taken", n, len(entries))
		}
	}
	for n := range info {
		_, _ = DecodeTable(firewall.TableIP, "filter", info[:n], entries, nil)
	}
	info, entries = capture(t, "nat.ip.blob")
	b := bytes.Clone(entries)
	for i := range b {
		for _, c := range []byte{0, 1, 0x7f, 0xff} {
			b[i] = c
			printAll(firewall.TableIP, info, b)
		}
		b[i] = entries[i]
	}
}

func printAll(fam firewall.TableFamily, info, entries []byte) {
	tb, err := DecodeTable(fam, cstring(info[:min(32, len(info))]), info, entries, nil)
	if err != nil {
		return
	}
	for _, c := range tb.Chains {
		for _, r := range c.Rules {
			r.Text()
		}
	}
}

func FuzzDecodeTable(f *testing.F) {
	for _, name := range []string{"filter.ip.blob", "mangle.ip.blob", "nat.ip.blob", "filter.ip6.blob", "mangle.ip6.blob"} {
		info, entries := capture(f, name)
		f.Add(strings.Contains(name, "ip6"), info, entries)
	}
	f.Fuzz(func(t *testing.T, v6 bool, info, entries []byte) {
		fam := firewall.TableIP
		if v6 {
			fam = firewall.TableIP6
		}
		printAll(fam, info, entries)
	})
}

// FuzzExt decodes and prints a single match or target of any module.
func FuzzExt(f *testing.F) {
	for name, revs := range matches {
		for _, d := range revs {
			f.Add(name, d.rev, make([]byte, d.size+8))
		}
	}
	for name, revs := range targets {
		for _, d := range revs {
			f.Add(name, d.rev, bytes.Repeat([]byte{0xff}, d.size+8))
		}
	}
	f.Fuzz(func(t *testing.T, name string, rev uint8, info []byte) {
		for _, fam := range []firewall.TableFamily{firewall.TableIP, firewall.TableIP6} {
			cx := &Context{Family: fam, Hooks: 1 << firewall.Prerouting}
			e := Ext{Name: name, Rev: rev, Info: info}
			for _, s := range DecodeMatch(cx, e) {
				if s == nil {
					t.Fatal("a nil statement")
				}
			}
			if len(DecodeTarget(cx, e)) == 0 && name != "SET" {
				t.Fatal("a target that says nothing")
			}
			zero := make([]byte, 16)
			s := Spec{Family: fam, Chain: "c", Matches: []Ext{e}, Target: e,
				Header: Header{Src: zero, Dst: zero, SrcMask: zero, DstMask: zero, In: zero, Out: zero, InMask: zero, OutMask: zero}}
			s.Append(nil)
		}
	})
}

// TestUnknownModules: what is not known becomes opaque with name, revision and
// bytes.
func TestUnknownModules(t *testing.T) {
	cx := &Context{Family: firewall.TableIP}
	o, ok := DecodeMatch(cx, Ext{"geoip", 2, []byte{1, 2}})[0].(*firewall.Opaque)
	if !ok || o.MayEnd || !strings.Contains(o.Reason, "geoip") || !strings.Contains(o.Reason, "revision 2") || !strings.Contains(o.Reason, "0x0102") {
		t.Errorf("an unknown match: %+v", o)
	}
	o, ok = DecodeTarget(cx, Ext{"TARPIT", 0, nil})[0].(*firewall.Opaque)
	if !ok || !o.MayEnd || !strings.Contains(o.Reason, "TARPIT") {
		t.Errorf("an unknown target: %+v", o)
	}
	o, ok = DecodeMatch(cx, Ext{"tcp", 9, make([]byte, 16)})[0].(*firewall.Opaque)
	if !ok || o.MayEnd {
		t.Errorf("an unknown revision: %+v", o)
	}
	o, ok = DecodeTarget(cx, Ext{"MARK", 2, make([]byte, 3)})[0].(*firewall.Opaque)
	if !ok || !o.MayEnd {
		t.Errorf("a struct that is too short: %+v", o)
	}
}

// TestEveryModuleHasText: what can be decoded can be printed.
func TestEveryModuleHasText(t *testing.T) {
	for name, revs := range matches {
		for _, d := range revs {
			if !hasSaver(matchSavers[name], d.rev) {
				t.Errorf("match %s revision %d has no text", name, d.rev)
			}
		}
	}
	for name, revs := range targets {
		for _, d := range revs {
			if !hasSaver(targetSavers[name], d.rev) && name != "ULOG" && !(name == "TEE" && d.rev == 0) {
				t.Errorf("target %s revision %d has no text", name, d.rev)
			}
		}
	}
}

func hasSaver(savers []saver, rev uint8) bool {
	for _, s := range savers {
		if s.rev == rev {
			return true
		}
	}
	return false
}
