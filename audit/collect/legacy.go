package collect

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/xtables"
	"github.com/hostaudit/hostaudit/listeners"
)

// readRecent tells which lists of the recent match are known to be empty; those of
// the others, and all where it cannot be read, may hold anybody.
func readRecent(a *answers) func(name string) bool {
	names, err := a.one("recent lists that are empty", xtables.RecentEmpty)
	if err != nil {
		return nil
	}
	return xtables.Recents(names)
}

// readARPTables gives the tables of arptables-legacy that do anything, nil for
// none; where that cannot be read there may be one. Recordings of before it was
// asked hold none.
func readARPTables(a *answers) *firewall.Table {
	names, err := a.one("legacy tables arp", xtables.ARPTables)
	switch {
	case errors.Is(err, listeners.ErrNotRecorded):
		return nil
	case err != nil:
		return xtables.ARPTable([]byte("filter"))
	}
	return xtables.ARPTable(names)
}

// legacySource passes the questions about legacy tables through the answers of
// a namespace. A question asked again replaces its first answer: when a table
// changed under the reading, the last look at it counts.
type legacySource struct {
	answers *answers
	kernel  xtables.Source // nil in a replay
}

// Names implements [xtables.Source].
func (s legacySource) Names(ctx context.Context, family firewall.TableFamily) ([]byte, error) {
	b, err := s.answers.one("legacy tables "+string(family), func() ([]byte, error) {
		b, err := s.kernel.Names(ctx, family)
		if errors.Is(err, xtables.ErrNotPresent) {
			err = fmt.Errorf("%w (%w)", err, unix.ENOPROTOOPT) // the errno survives a recording
		}
		return b, err
	})
	if errors.Is(err, unix.ENOPROTOOPT) {
		return nil, xtables.ErrNotPresent
	}
	return b, err
}

// Info implements [xtables.Source].
func (s legacySource) Info(ctx context.Context, family firewall.TableFamily, table string) ([]byte, error) {
	return s.answers.one("legacy info "+string(family)+" "+table, func() ([]byte, error) { return s.kernel.Info(ctx, family, table) })
}

// Entries implements [xtables.Source].
func (s legacySource) Entries(ctx context.Context, family firewall.TableFamily, table string, size int) ([]byte, error) {
	b, err := s.answers.one("legacy entries "+string(family)+" "+table, func() ([]byte, error) {
		b, err := s.kernel.Entries(ctx, family, table, size)
		if errors.Is(err, xtables.ErrChanged) {
			err = fmt.Errorf("%w (%w)", err, unix.EAGAIN)
		}
		return b, err
	})
	switch {
	case errors.Is(err, unix.EAGAIN) && !errors.Is(err, xtables.ErrChanged):
		return nil, fmt.Errorf("%w: %w", xtables.ErrChanged, err)
	case err == nil && len(b) != size:
		return nil, fmt.Errorf("%d bytes of entries, the table has %d", len(b), size)
	}
	return b, err
}
