package listeners

import (
	"bytes"
	"runtime"
	"slices"
	"strconv"
)

// selectFrom is the number of open descriptors from which it is worth knowing
// that a process waits with select(2), which watches 1024 at most.
const selectFrom = 512

// selectCalls are the numbers of select(2) and pselect6(2) by architecture.
var selectCalls = map[string][]int64{"amd64": {23, 270}, "arm64": {72}, "riscv64": {72}}

// readSelect looks whether the process waits in select(2) at this moment, and
// for descriptors up to which number (/proc/PID/syscall: number and arguments;
// "running" where it does not wait). It needs the right to trace the process, and
// where that is missing nothing is known, as when the process is busy.
func (p *Process) readSelect(r *procReader, dir int) {
	if p.Files.Open < selectFrom {
		return
	}
	if b, err := r.read(dir, "syscall", maxProcFile, single); err == nil {
		p.SelectOn = parseSelect(b, runtime.GOARCH)
	}
}

// parseSelect gives the first argument of a select, 0 for every other call.
func parseSelect(b []byte, arch string) int {
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0
	}
	call, err := strconv.ParseInt(string(f[0]), 10, 64)
	if err != nil || !slices.Contains(selectCalls[arch], call) {
		return 0
	}
	n, err := strconv.ParseInt(string(f[1]), 0, 32)
	if err != nil || n < 0 {
		return 0
	}
	return int(n)
}
