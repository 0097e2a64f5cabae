package remedy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/owner"
)

// ruleset reads the rules anew.
func (s *System) ruleset(ctx context.Context) (*firewall.Ruleset, error) {
	snap, err := s.Read(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the rules: %w", err)
	}
	home := snap.World.Namespaces[0]
	if home.Ruleset == nil {
		return nil, fmt.Errorf("read the rules: %s", home.Unread["firewall"])
	}
	return home.Ruleset, nil
}

func (s *System) observeRule(ctx context.Context, i *owner.Insertion) (position, string, error) {
	rs, err := s.ruleset(ctx)
	if err != nil {
		return elsewhere, "", err
	}
	rules := i.Find(rs)
	switch {
	case len(rules) == 0:
		return isBefore, "", nil
	case len(rules) == 1 && i.Is(rules[0]):
		return isAfter, "", nil
	case len(rules) == 1:
		return elsewhere, rules[0].Text(), nil
	}
	return elsewhere, fmt.Sprintf("%d rules bear the comment %s", len(rules), i.Comment), nil
}

func (s *System) setRule(ctx context.Context, i *owner.Insertion, forward bool) error {
	if i.Backend != firewall.NFTables {
		return s.believeNobody(s.iptables(ctx, i, forward))
	}
	if forward {
		argv, stdin := i.Do()
		_, err := s.run(ctx, argv, stdin)
		return s.believeNobody(err)
	}
	rs, err := s.ruleset(ctx)
	if err != nil {
		return err
	}
	for _, r := range i.Find(rs) {
		argv, stdin := i.Undo(r.Handle)
		if _, err := s.run(ctx, argv, stdin); s.believeNobody(err) != nil {
			return err
		}
	}
	return nil
}

// believeNobody keeps only errors of programs that could not be run or did not
// end: with any exit status, the fresh reading that follows decides.
func (s *System) believeNobody(err error) error {
	var e *toolError
	if errors.As(err, &e) && e.status > 0 {
		s.say("%v", err)
		return nil
	}
	return err
}

func (s *System) observeTool(ctx context.Context, i *owner.Instruction) (position, string, error) {
	if len(i.Query) == 0 {
		for _, name := range i.Files {
			f, err := s.readFile(name)
			if err != nil {
				return elsewhere, "", err
			}
			if f != nil && strings.Contains(string(f.data), i.Mark) {
				return isAfter, "", nil
			}
		}
		return isBefore, "", nil
	}
	_, err := s.run(ctx, i.Query, "")
	var e *toolError
	switch {
	case err == nil:
		return isAfter, "", nil
	case errors.As(err, &e) && e.status == 1:
		return isBefore, "", nil
	case errors.As(err, &e) && e.status == firewalldNotRunning && i.Owner == owner.Firewalld:
		return elsewhere, "", fmt.Errorf("%w: %w", errNotRunning, err)
	}
	return elsewhere, "", err
}

// firewalldNotRunning is how firewall-cmd ends without its daemon
// (firewall-cmd(1), exit codes: NOT_RUNNING).
const firewalldNotRunning = 252

var errNotRunning = errors.New("the owner of the rules does not run")

func (s *System) setTool(ctx context.Context, i *owner.Instruction, forward bool) error {
	argv := i.Do
	if !forward {
		argv = i.Undo
	}
	_, err := s.run(ctx, argv, "")
	return s.believeNobody(err)
}

// undoOffline takes an instruction back after a reboot, at a time when the owner
// may not run yet: in the owner's own files, or with its offline program.
func (s *System) undoOffline(i *owner.Instruction) error {
	if !i.Lasts {
		return nil // it was in memory only
	}
	if i.Owner == owner.UFW {
		for _, name := range i.Files {
			f, err := s.readFile(name)
			if err != nil {
				return err
			}
			if f == nil {
				continue
			}
			if rest, changed := owner.WithoutUFW(f.data, i.Mark); changed {
				c := &FileChange{Path: name, Before: f.data, HasBefore: true, After: rest, HasAfter: true}
				if err := s.setFile(context.Background(), c, true); err != nil {
					return err
				}
			}
		}
		return nil
	}
	argv := i.Offline()
	if argv == nil {
		return fmt.Errorf("%s cannot be changed while it does not run", i.Owner)
	}
	_, err := s.run(context.Background(), argv, "")
	return s.believeNobody(err)
}
