package listeners

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// direntNameOff is the offset of the name in struct linux_dirent64.
const direntNameOff = 19

// numericEntries gives the entries of a getdents64 buffer whose names are
// numbers: the number, and the offset of the NUL-terminated name in buf.
func numericEntries(buf []byte) iter.Seq2[int, int] {
	return func(yield func(number, nameOff int) bool) {
		for off := 0; off+direntNameOff < len(buf); {
			size := int(binary.NativeEndian.Uint16(buf[off+16:]))
			if size <= direntNameOff || off+size > len(buf) {
				return
			}
			if n, ok := number(buf[off+direntNameOff : off+size]); ok && !yield(n, off+direntNameOff) {
				return
			}
			off += size
		}
	}
}

// number reads a decimal number that ends at a NUL.
func number(b []byte) (n int, ok bool) {
	for i, c := range b {
		switch {
		case c == 0:
			return n, i > 0
		case c < '0' || c > '9' || n >= 1<<31/10:
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return 0, false
}

// listPIDs gives the processes in the directory proc, in its order.
func listPIDs(proc int) ([]int, error) { return listNumbers(proc, ".") }

// listNumbers gives the numeric names in a directory below dir.
func listNumbers(dir int, name string) ([]int, error) {
	fd, err := openAt(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var out []int
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return out, err
		}
		if n <= 0 {
			return out, nil
		}
		for number := range numericEntries(buf[:n]) {
			out = append(out, number)
		}
	}
}
