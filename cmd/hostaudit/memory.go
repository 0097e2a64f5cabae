package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"
)

// unhurried is how much memory the program takes before it looks for garbage
// for the first time. A scan of an ordinary host ends before that; the default,
// 4 MB, has it collect a dozen times and costs a fifth of its time.
const unhurried = 32 << 20

// delayCollection puts the first collection of garbage off until the program
// holds as much as unhurried; from then on collections follow the growth of what
// is in use, as they do everywhere. GOGC and GOMEMLIMIT of the environment win.
func delayCollection() {
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		if _, set := os.LookupEnv(name); set {
			return
		}
	}
	percent := debug.SetGCPercent(-1)
	debug.SetMemoryLimit(unhurried)
	useHugePages()
	// Nothing refers to it, so that the first collection finds it.
	runtime.SetFinalizer(&sentinel{}, func(*sentinel) {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(math.MaxInt64)
	})
}

// sentinel has a size of its own: objects without one share an address.
type sentinel struct{ _ [16]byte }

const (
	hugePage = 2 << 20
	// roomy is half of what a scan of an ordinary host takes: the runtime makes a
	// stack of twice as much for it.
	roomy = 8<<20 + 1
)

// useHugePages asks the kernel to back the first megabytes of the heap with huge
// pages (madvise(2), MADV_HUGEPAGE): the first touch of a small page costs a
// fault, of which a short run has a thousand, and in a virtual machine each can
// take twenty microseconds. The runtime has no call for that; but the stack of a
// goroutine lies in the heap, comes from the system in one piece, and goes back
// to the heap untouched when the goroutine ends.
func useHugePages() {
	var here byte
	first := uintptr(unsafe.Pointer(&here)) // in the piece of 4 MB that the heap begins with
	advise(first&^(2*hugePage-1), 2*hugePage)
	done := make(chan struct{})
	go func() {
		defer close(done)
		large(false)
	}()
	<-done
}

// advise takes whole pages of the heap; the kernel may refuse, and nothing is lost.
func advise(at, size uintptr) {
	_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, at, size, unix.MADV_HUGEPAGE)
}

// large has a stack with room for an argument that it never passes.
//
//go:noinline
func large(pass bool) byte {
	var here byte
	if pass {
		return last([roomy]byte{})
	}
	top := uintptr(unsafe.Pointer(&here))
	advise((top-2*roomy)&^(hugePage-1), 2*roomy)
	return here
}

//go:noinline
func last(b [roomy]byte) byte { return b[len(b)-1] }
