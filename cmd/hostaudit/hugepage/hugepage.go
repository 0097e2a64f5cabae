// Package hugepage asks the kernel to back the first megabytes of the heap with
// huge pages (madvise(2), MADV_HUGEPAGE and MADV_COLLAPSE), as soon as it is
// imported. The first touch of a small page costs a fault, of which a short run
// has two thousand, and in a virtual machine each can take twenty microseconds.
//
// It imports almost nothing, so that Go initialises it before the libraries, which
// make half a megabyte of tables ahead of main (go.dev/ref/spec, Package
// initialization: by import path, what is ready first).
package hugepage

import (
	"runtime"
	"syscall"
	"unsafe"
)

const (
	// Size of a huge page.
	Size = 2 << 20
	// Roomy is half of what a scan of an ordinary host takes: the runtime makes a
	// stack of twice as much for it.
	Roomy = 16<<20 + 1

	// Early is the part of it that is touched at once, while the libraries are
	// initialised: zeroing a huge page takes a quarter of a millisecond, and the
	// second processor has nothing else to do so soon.
	Early = 8 << 20

	// of mman.h; the syscall package does not know them.
	madvPopulateWrite = 23
	madvCollapse      = 25
)

func init() { Use() }

// Use marks the pages. The runtime has no call for that; but the stack of a
// goroutine lies in the heap, comes from the system in one piece, and goes back
// to the heap untouched when the goroutine ends. The kernel may refuse, and
// nothing is lost.
func Use() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		grow(false)
		var here byte
		top := uintptr(unsafe.Pointer(&here))
		bottom := top - 2*Roomy
		advise(bottom, 2*Roomy, syscall.MADV_HUGEPAGE)
		// The first one has small pages in use, and stays with them unless asked.
		advise(bottom, Size, madvCollapse)
		if runtime.NumCPU() > 1 {
			go func() {
				if enabled() {
					touch(bottom+Size, Early)
				}
			}()
		}
	}()
	<-done
}

// enabled tells whether the kernel gives huge pages to those who ask: without them
// the pages are better touched when they are needed, if ever.
func enabled() bool {
	fd, err := syscall.Open("/sys/kernel/mm/transparent_hugepage/enabled", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	var b [64]byte // "always [madvise] never"
	n, _ := syscall.Read(fd, b[:])
	for i := 0; i+6 < n; i++ {
		if string(b[i:i+7]) == "[never]" {
			return false
		}
	}
	return n > 0
}

// touch has the kernel make the pages, one at a time so that nobody waits long for
// the address space.
func touch(at, size uintptr) {
	for end := at + size; at < end; at += Size {
		_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, at&^(Size-1), Size, madvPopulateWrite)
	}
}

// advise takes the huge page around an address, and more after it.
func advise(at, size uintptr, advice uintptr) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_MADVISE, at&^(Size-1), size, advice)
}

// grow has a stack with room for an argument that it never passes, and touches
// none of it.
//
//go:noinline
func grow(pass bool) byte {
	if pass {
		return last([Roomy]byte{})
	}
	return 0
}

//go:noinline
func last(b [Roomy]byte) byte { return b[len(b)-1] }
