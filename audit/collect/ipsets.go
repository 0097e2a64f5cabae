package collect

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall/ipset"
)

// ipsetSource passes the questions about ipsets through the answers of a
// namespace.
type ipsetSource struct {
	answers *answers
	kernel  ipset.Source // nil in a replay
}

// List implements [ipset.Source].
func (s ipsetSource) List(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		parts, err := s.answers.get("ipsets", func() (parts [][]byte, err error) {
			for msg, err := range s.kernel.List(ctx) {
				if errors.Is(err, ipset.ErrNotPresent) {
					return nil, fmt.Errorf("%w (%w)", err, unix.ENOPROTOOPT) // the errno survives a recording
				}
				if err != nil {
					return parts, err
				}
				parts = append(parts, append([]byte(nil), msg...))
			}
			return parts, nil
		})
		if errors.Is(err, unix.ENOPROTOOPT) {
			err = ipset.ErrNotPresent
		}
		for _, msg := range parts {
			if !yield(msg, nil) {
				return
			}
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// Index implements [ipset.Source].
func (s ipsetSource) Index(ctx context.Context, name string) (uint16, error) {
	b, err := s.answers.one("ipset index "+name, func() ([]byte, error) {
		i, err := s.kernel.Index(ctx, name)
		return binary.BigEndian.AppendUint16(nil, i), err
	})
	if err == nil && len(b) != 2 {
		err = errShortMessage
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint16(b), nil
}

// liveIPSets reads the sets of the calling thread's namespace.
func liveIPSets(ctx context.Context, a *answers) (*ipset.Sets, error) {
	kernel, err := ipset.Open()
	if err != nil {
		return nil, err
	}
	defer kernel.Close()
	if !a.keep {
		return ipset.Read(ctx, kernel)
	}
	return ipset.Read(ctx, ipsetSource{a, kernel})
}
