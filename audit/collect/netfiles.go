package collect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxNetFile bounds one file below /proc/net.
const maxNetFile = 16 << 20

// netFile reads a file of the calling thread's network namespace.
func netFile(a *answers, name string) ([]byte, error) {
	return a.one("net "+name, func() ([]byte, error) {
		f, err := os.Open("/proc/thread-self/net/" + name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxNetFile+1))
		if err == nil && len(b) > maxNetFile {
			err = fmt.Errorf("longer than %d bytes", maxNetFile)
		}
		return b, err
	})
}

// readQueues gives the NFQUEUE numbers that programs listen on
// (net/netfilter/nfnetlink_queue.c, seq_show: the number comes first).
func readQueues(a *answers) (map[uint16]bool, error) {
	b, err := netFile(a, "netfilter/nfnetlink_queue")
	if errors.Is(err, fs.ErrNotExist) {
		return map[uint16]bool{}, nil // nobody can listen without nfnetlink_queue
	}
	if err != nil {
		return nil, fmt.Errorf("read the listeners of NFQUEUE: %w", err)
	}
	out := map[uint16]bool{}
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) == 0 {
			continue
		}
		n, err := strconv.ParseUint(string(f[0]), 10, 16)
		if err != nil {
			return nil, fmt.Errorf("read the listeners of NFQUEUE: %w", err)
		}
		out[uint16(n)] = true
	}
	return out, nil
}

// readNoIPSec tells whether the namespace has neither IPsec policies nor
// states. Without the key managers' interfaces in the kernel (xfrm_user and
// af_key are modules) nobody can have made any.
func readNoIPSec(a *answers) (bool, error) {
	if _, err := netFile(a, "pfkey"); !errors.Is(err, fs.ErrNotExist) && err != nil {
		return false, fmt.Errorf("read IPsec state: %w", err)
	}
	b, err := netFile(a, "netlink")
	if err != nil {
		return false, fmt.Errorf("read IPsec state: %w", err)
	}
	user := hasNetlink(b, unix.NETLINK_XFRM)
	if !user {
		_, err := netFile(a, "pfkey")
		return errors.Is(err, fs.ErrNotExist), nil
	}
	// XFRM_MSG_GETSADINFO and XFRM_MSG_GETSPDINFO (xfrm_user.c, build_sadinfo and
	// build_spdinfo) tell the numbers of both: the request is four bytes of flags.
	const getSADInfo, getSPDInfo = 0x23, 0x25
	const sadCount, spdInfo = 1, 1
	n := uint32(0)
	for _, q := range []struct {
		name   string
		typ    uint16
		attr   uint16
		fields int // the first three of struct xfrmu_spdinfo: policies in, out, forwarded
	}{{"ipsec states", getSADInfo, sadCount, 1}, {"ipsec policies", getSPDInfo, spdInfo, 3}} {
		parts, err := a.get(q.name, func() ([][]byte, error) {
			return netlinkAsk(unix.NETLINK_XFRM, q.typ, 0, make([]byte, 4))
		})
		if err != nil {
			return false, fmt.Errorf("count %s: %w", q.name, err)
		}
		told := false
		for _, b := range parts {
			if len(b) < 4 {
				return false, fmt.Errorf("count %s: %w", q.name, errShortMessage)
			}
			for typ, v := range attrs(b[4:], a.order, nil) {
				if typ == q.attr && len(v) >= 4*q.fields {
					told = true
					for i := range q.fields {
						n |= a.order.Uint32(v[4*i:])
					}
				}
			}
		}
		if !told {
			return false, fmt.Errorf("count %s: %w", q.name, errShortMessage)
		}
	}
	return n == 0, nil
}

// hasNetlink looks in /proc/net/netlink for the kernel's own socket of a
// protocol: columns sk, Eth (the protocol), Pid.
func hasNetlink(b []byte, protocol int) bool {
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) > 3 && string(f[1]) == strconv.Itoa(protocol) && string(f[2]) == "0" {
			return true
		}
	}
	return false
}
