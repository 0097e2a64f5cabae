package ipset

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hostaudit/hostaudit/firewall"
)

// fakeSource answers from memory.
type fakeSource struct {
	messages [][]byte
	err      error
	index    func(name string) (uint16, error)
}

func (f *fakeSource) List(context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, m := range f.messages {
			if !yield(m, nil) {
				return
			}
		}
		if f.err != nil {
			yield(nil, f.err)
		}
	}
}

func (f *fakeSource) Index(_ context.Context, name string) (uint16, error) {
	if f.index == nil {
		return 0, errors.New("not to be asked")
	}
	return f.index(name)
}

// recorded is a list that a kernel gave: messages, each after its length.
func recorded(t testing.TB) [][]byte {
	t.Helper()
	b, err := os.ReadFile("testdata/list.bin")
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for len(b) >= 4 {
		n := int(binary.BigEndian.Uint32(b))
		out = append(out, b[4:4+n])
		b = b[4+n:]
	}
	if len(out) < 15 {
		t.Fatalf("only %d messages", len(out))
	}
	return out
}

func TestReplay(t *testing.T) {
	s, err := Read(t.Context(), &fakeSource{messages: recorded(t)})
	if err != nil {
		t.Fatal(err)
	}
	set := s.ByName("net4")
	if set == nil || set.N != 3 || set.Type != "hash:net" || set.Family != firewall.IPv4 || !slices.Contains(set.Nomatch, true) {
		t.Errorf("net4: %+v", set)
	}
	if found, err := s.IPSet(set.Index); err != nil || found != set {
		t.Errorf("index %d: %v, %v", set.Index, found, err)
	}
	if _, err := s.IPSet(60000); err == nil {
		t.Error("an index that no set has is found")
	}
	var none *Sets
	if _, err := none.IPSet(1); err == nil || none.All() != nil || none.ByName("x") != nil {
		t.Error("no sets at all")
	}
}

func TestReadFailures(t *testing.T) {
	if s, err := Read(t.Context(), &fakeSource{err: ErrNotPresent}); err != nil || len(s.All()) != 0 {
		t.Errorf("no ipset: %v, %v", s, err)
	}
	if s, err := Read(t.Context(), &fakeSource{messages: recorded(t)[:3], err: &Error{"list", "sets", syscall.EPERM}}); !errors.Is(err, syscall.EPERM) || s != nil {
		t.Errorf("EPERM: %v, %v", s, err)
	}
}

// TestOldKernel: without the index in the list (protocol 6) it is asked for.
func TestOldKernel(t *testing.T) {
	var messages [][]byte
	for _, m := range recorded(t) {
		out := slices.Clone(m[:4])
		for a := walk(m[4:]); a.next(); {
			if a.typ != attrIndex {
				out = binary.NativeEndian.AppendUint16(out, uint16(4+len(a.val)))
				out = binary.NativeEndian.AppendUint16(out, a.typ)
				out = append(out, a.val...)
				for len(out)%4 != 0 {
					out = append(out, 0)
				}
			}
		}
		messages = append(messages, out)
	}
	next := uint16(100)
	src := &fakeSource{messages: messages, index: func(name string) (uint16, error) {
		next++
		return next, nil
	}}
	s, err := Read(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	if set, err := s.IPSet(101); err != nil || set != s.All()[0] {
		t.Errorf("index 101: %v, %v", set, err)
	}
	src.index = func(string) (uint16, error) { return 0, syscall.ENOENT }
	if _, err := Read(t.Context(), src); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("an index that cannot be had: %v", err)
	}
}

// TestTornMessages: bytes that end early are an error, never fewer elements.
func TestTornMessages(t *testing.T) {
	for _, m := range recorded(t) {
		if !strings.Contains(string(m), "net4") {
			continue
		}
		for n := range m {
			if s, err := Read(t.Context(), &fakeSource{messages: [][]byte{m[:n]}}); err == nil && len(s.All()) > 0 && s.All()[0].N == 3 {
				t.Errorf("a message cut at %d of %d bytes is taken whole", n, len(m))
			}
		}
		return
	}
	t.Fatal("no message of net4")
}

func FuzzMessages(f *testing.F) {
	for _, m := range recorded(f) {
		f.Add(m, m)
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		s, err := Read(t.Context(), &fakeSource{messages: [][]byte{a, b}, index: func(string) (uint16, error) { return 1, nil }})
		if err != nil {
			return
		}
		link := &firewall.Link{Name: "eth0", Type: 1}
		for _, set := range s.All() {
			for _, fam := range []firewall.Family{firewall.IPv4, firewall.IPv6} {
				st := firewall.First(fam, firewall.TCP, firewall.Num(5), 80)
				st.In = link
				c := &firewall.Class{Remote: firewall.All(fam.AddrLen()), Ports: firewall.All(2), State: st}
				m := firewall.IPSetMatch{Set: set, Src: []bool{true, false, true}}
				m.Split(c, &firewall.Env{})
			}
		}
	})
}
