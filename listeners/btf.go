package listeners

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// vmlinuxBTF is the kernel's own description of its types.
const vmlinuxBTF = "/sys/kernel/btf/vmlinux"

// maxBTF bounds what is taken for BTF; kernels have some 6 MB of it.
const maxBTF = 64 << 20

// btfSection is the part of BTF (Documentation/bpf/btf.rst, include/uapi/linux/btf.h)
// that is needed to find a few members and a function. A library that knows all of
// it makes an index of 130,000 types first, which takes twenty times as long as
// going through them once.
type btfSection struct {
	types   []byte
	strings []byte
}

// Kinds of types (BTF_KIND_*).
const (
	btfInt       = 1
	btfPtr       = 2
	btfArray     = 3
	btfStruct    = 4
	btfUnion     = 5
	btfEnum      = 6
	btfFwd       = 7
	btfTypedef   = 8
	btfVolatile  = 9
	btfConst     = 10
	btfRestrict  = 11
	btfFunc      = 12
	btfFuncProto = 13
	btfVar       = 14
	btfDatasec   = 15
	btfFloat     = 16
	btfDeclTag   = 17
	btfTypeTag   = 18
	btfEnum64    = 19

	maxBTFKind = 31 // five bits
)

// btfTypeLen is the size of struct btf_type, btfMemberLen that of struct btf_member.
const btfTypeLen, btfMemberLen = 12, 12

// btfTail gives the size of what follows the head of a type: so much, and so much
// for each of its vlen parts.
func btfTail(kind uint32) (fixed, each int, known bool) {
	switch kind {
	case btfPtr, btfFwd, btfTypedef, btfVolatile, btfConst, btfRestrict, btfFunc, btfFloat, btfTypeTag:
		return 0, 0, true
	case btfInt, btfVar, btfDeclTag:
		return 4, 0, true
	case btfArray:
		return 12, 0, true
	case btfStruct, btfUnion, btfDatasec, btfEnum64:
		return 0, 12, true
	case btfEnum, btfFuncProto:
		return 0, 8, true
	}
	return 0, 0, false
}

// mapBTF gives the content of a BTF file, and what gives it back. Linux 6.16 and
// later map the file; before that it is read.
func mapBTF(name string) (data []byte, unmap func(), err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	size := st.Size()
	if size <= 0 || size > maxBTF {
		return nil, nil, fmt.Errorf("%s: %d bytes", name, size)
	}
	data, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		// Outside the heap, which should not grow for a moment's reading.
		data, err = unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
		if err != nil {
			return nil, nil, fmt.Errorf("make room for %s: %w", name, err)
		}
		if _, err := f.ReadAt(data, 0); err != nil {
			_ = unix.Munmap(data)
			return nil, nil, err
		}
	}
	return data, func() { _ = unix.Munmap(data) }, nil
}

var errBTF = errors.New("malformed BTF")

// parseBTF finds the two sections behind the header (struct btf_header).
func parseBTF(data []byte) (*btfSection, error) {
	const magic, headerLen = 0xEB9F, 24
	if len(data) < headerLen {
		return nil, fmt.Errorf("%w: %d bytes", errBTF, len(data))
	}
	ne := binary.NativeEndian
	if ne.Uint16(data) != magic || data[2] != 1 {
		return nil, fmt.Errorf("%w: not version 1 of this byte order", errBTF)
	}
	part := func(off, size int) []byte {
		from := uint64(ne.Uint32(data[4:])) + uint64(ne.Uint32(data[off:]))
		to := from + uint64(ne.Uint32(data[size:]))
		if to > uint64(len(data)) {
			return nil
		}
		return data[from:to]
	}
	s := &btfSection{types: part(8, 12), strings: part(16, 20)}
	if s.types == nil || s.strings == nil {
		return nil, fmt.Errorf("%w: a section ends behind the end", errBTF)
	}
	return s, nil
}

// named tells whether the string at an offset is this one.
func (s *btfSection) named(off uint32, name string) bool {
	end := uint64(off) + uint64(len(name))
	return end < uint64(len(s.strings)) && s.strings[end] == 0 && string(s.strings[off:end]) == name
}

// text is the string at an offset, and "" for one that lies outside.
func (s *btfSection) text(off uint32) string {
	if uint64(off) >= uint64(len(s.strings)) {
		return ""
	}
	b := s.strings[off:]
	end := bytes.IndexByte(b, 0)
	if end < 0 {
		return ""
	}
	return string(b[:end])
}

// btfType is one type: its number, kind, and what follows its head.
type btfType struct {
	id, name, kind uint32
	bits           bool // kind_flag: members carry the size of a bit field
	parts          []byte
}

// btfName asks for a type by what it is called.
type btfName struct {
	kind uint32
	name string
}

// find looks for named types in one pass, which ends as soon as it has them all.
func (s *btfSection) find(names ...btfName) ([]btfType, error) {
	out := make([]btfType, len(names))
	var wanted [maxBTFKind + 1]bool
	for _, n := range names {
		wanted[n.kind] = true
	}
	left := len(names)
	err := s.each(func(kind uint32) bool { return wanted[kind] }, func(t btfType) bool {
		for i, n := range names {
			if out[i].id == 0 && t.kind == n.kind && s.named(t.name, n.name) {
				out[i] = t
				left--
			}
		}
		return left > 0
	})
	if err != nil {
		return nil, err
	}
	for i := range out {
		if out[i].id == 0 {
			return nil, fmt.Errorf("kernel BTF has no %s of kind %d", names[i].name, names[i].kind)
		}
	}
	return out, nil
}

// each goes through all types, numbered from 1, and calls f for those of a kind
// that is wanted, until f has enough.
func (s *btfSection) each(want func(kind uint32) bool, f func(t btfType) (more bool)) error {
	// The loop sees each of 130,000 types, so what it asks is asked beforehand.
	var kinds [maxBTFKind + 1]struct {
		fixed, each   int
		known, wanted bool
	}
	for i := range kinds {
		k := &kinds[i]
		k.fixed, k.each, k.known = btfTail(uint32(i))
		k.fixed += btfTypeLen
		k.wanted = want(uint32(i))
	}
	ne := binary.NativeEndian
	id := uint32(1)
	for b := s.types; len(b) > 0; id++ {
		if len(b) < btfTypeLen {
			return fmt.Errorf("%w: type %d is cut off", errBTF, id)
		}
		info := ne.Uint32(b[4:])
		kind := info >> 24 & maxBTFKind
		k := &kinds[kind]
		end := k.fixed + k.each*int(info&0xffff)
		if !k.known || end > len(b) {
			return fmt.Errorf("%w: type %d of kind %d", errBTF, id, kind)
		}
		if k.wanted && !f(btfType{id, ne.Uint32(b), kind, info>>31 == 1, b[btfTypeLen:end]}) {
			return nil
		}
		b = b[end:]
	}
	return nil
}

// byID looks for a type by its number.
func (s *btfSection) byID(id uint32) (found btfType, ok bool) {
	err := s.each(func(uint32) bool { return true }, func(t btfType) bool {
		if t.id == id {
			found, ok = t, true
		}
		return !ok
	})
	return found, ok && err == nil
}

// maxBTFDepth bounds anonymous structs within each other.
const maxBTFDepth = 8

// offset gives the place of a member in bytes; members of anonymous structs and
// unions count as the outer one's own, as in C.
func (s *btfSection) offset(t btfType, member string) (uint32, bool) {
	return s.offsetIn(t, member, maxBTFDepth)
}

func (s *btfSection) offsetIn(t btfType, member string, depth int) (uint32, bool) {
	if depth == 0 || t.kind != btfStruct && t.kind != btfUnion {
		return 0, false
	}
	ne := binary.NativeEndian
	for b := t.parts; len(b) >= btfMemberLen; b = b[btfMemberLen:] {
		name, at := s.text(ne.Uint32(b)), ne.Uint32(b[8:])
		if t.bits {
			if at>>24 != 0 && name == member {
				return 0, false // a bit field has no address
			}
			at &= 1<<24 - 1
		}
		if name == member {
			return at / 8, at%8 == 0
		}
		if name != "" {
			continue
		}
		inner, ok := s.byID(ne.Uint32(b[4:]))
		if !ok {
			continue
		}
		if off, ok := s.offsetIn(inner, member, depth-1); ok {
			return at/8 + off, true
		}
	}
	return 0, false
}
