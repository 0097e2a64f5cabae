package remedy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"time"

	"github.com/hostaudit/hostaudit/firewall/owner"
)

// undo takes back what a transaction has done so far and closes its journal. The
// error says how that went: ErrRolledBack or ErrLeft.
func (s *System) undo(ctx context.Context, st *store, j *Journal, why error) error {
	ctx = context.WithoutCancel(ctx)
	j.Why = ""
	if why != nil {
		j.Why = why.Error()
	}
	j.Left = s.restore(ctx, j)
	j.State, j.Ended = RolledBack, s.Now().UTC()
	if len(j.Left) > 0 {
		j.State = Incomplete
	}
	err := again(func() error { return st.save(j) })
	if err == nil {
		err = again(func() error { return st.archive(j) })
	}
	if err != nil {
		// The host is as it was; whoever comes next finds the open journal, sees
		// that nothing is left to be undone, and closes it.
		s.say("the journal could not be closed: %v", err)
	}
	s.Watch.Disarm(ctx, j.ID)
	if len(j.Left) > 0 {
		return leftError(j)
	}
	return fmt.Errorf("%w: %s", ErrRolledBack, j.Why)
}

func leftError(j *Journal) error {
	why := j.Why
	if why == "" {
		why = "undone"
	}
	return fmt.Errorf("%w: %s; left: %s", ErrLeft, why, strings.Join(j.Left, "; "))
}

// again tries three times: a rollback does not give up at a passing fault.
func again(f func() error) error {
	var err error
	for i := range 3 {
		if err = f(); err == nil {
			return nil
		}
		time.Sleep(time.Duration(i) * 20 * time.Millisecond)
	}
	return err
}

// restore undoes the steps that were begun, last first, and says what is left.
// Only what is as this program made it is put back: the rest is somebody else's
// by now. After a reboot what is live came from the files, or is gone: it is put
// back where it is as this program made it, and otherwise nobody's conflict.
func (s *System) restore(ctx context.Context, j *Journal) (left []string) {
	boot, err := bootID()
	rebooted := err == nil && boot != j.BootID
	ns, err := netNS()
	otherNS := err == nil && ns != j.NetNS && !rebooted
	for i := j.Step; i >= 0; i-- {
		step := &j.Steps[i]
		if step.Phase == Live && rebooted && step.Tool == nil {
			if at, _, err := s.observe(ctx, step); (err == nil || !j.Kept) && at != isAfter {
				continue
			}
		}
		if otherNS && step.File == nil {
			left = append(left, fmt.Sprintf("%s: it was changed in another network namespace (%d), roll back there", step, j.NetNS))
			continue
		}
		if err := again(func() error { return s.restoreStep(ctx, step, rebooted && !j.Kept) }); err != nil {
			left = append(left, fmt.Sprintf("%s: %v%s", step, err, prefixed("; by hand: ", step.byHand())))
		}
	}
	if err := again(func() error { return s.sweep(j.Steps) }); err != nil {
		left = append(left, err.Error())
	}
	return left
}

// errConflict: somebody else has changed it since.
var errConflict = errors.New("left as it is, somebody else changed it since")

func (s *System) restoreStep(ctx context.Context, step *Step, offline bool) error {
	if step.Tool != nil && offline {
		// Where the owner has loaded its files already (a recovery by hand, or by the
		// next run), its rules hold the change as well.
		rs, err := s.ruleset(ctx)
		if err != nil || !owner.AtWork(step.Tool.Owner, rs) {
			return errors.Join(s.undoOffline(step.Tool), err)
		}
	}
	at, what, err := s.observe(ctx, step)
	if errors.Is(err, errNotRunning) {
		// Early in the boot, or stopped: what lasts is taken out of its files.
		return s.undoOffline(step.Tool)
	}
	if err != nil {
		return err
	}
	switch at {
	case isBefore:
		return nil
	case elsewhere:
		return fmt.Errorf("%w%s", errConflict, prefixed(": ", what))
	}
	if err := s.set(ctx, step, false); err != nil {
		return err
	}
	if at, what, err = s.observe(ctx, step); err != nil {
		return err
	}
	if at != isBefore {
		return fmt.Errorf("it did not go back%s", prefixed(": ", what))
	}
	return nil
}

// byHand is what an operator would do to undo a step.
func (s *Step) byHand() string {
	switch {
	case s.Sysctl != nil:
		return fmt.Sprintf("sysctl -w '%s=%s'", s.Sysctl.Key, strings.Join(strings.Fields(s.Sysctl.Before), " "))
	case s.File != nil && !s.File.HasBefore:
		return "rm " + s.File.Path
	case s.Rule != nil:
		return s.Rule.ByHand()
	case s.Tool != nil:
		return strings.Join(s.Tool.Undo, " ")
	}
	return ""
}

// clear makes way for a new transaction: what an interrupted run left is undone,
// what waits to be confirmed is not touched.
func (s *System) clear(ctx context.Context, st *store) error {
	j, err := st.load()
	if err != nil {
		return refused(err)
	}
	if j == nil {
		// A temporary file of a journal that never came to be.
		return refusedIf(st.state.unlink("." + journalName + tempSuffix))
	}
	if s.waits(j) {
		return refused(fmt.Errorf("change %s waits to be confirmed for another %s: hostaudit confirm keeps it, hostaudit rollback %s undoes it", j.ID, j.boottimeLeft().Round(time.Second), j.ID))
	}
	s.say("an interrupted change (%s, %s) is undone first", j.ID, j.State)
	err = s.recover(ctx, st, j)
	if err != nil && !errors.Is(err, ErrRolledBack) {
		return err
	}
	return nil
}

func refusedIf(err error) error {
	if err == nil {
		return nil
	}
	return refused(err)
}

// waits: it is in place, and its time to be confirmed is not up.
func (s *System) waits(j *Journal) bool {
	return j.State == Applied && j.Wait && j.boottimeLeft() > 0 && s.sameBoot(j)
}

func (s *System) sameBoot(j *Journal) bool {
	boot, err := bootID()
	return err == nil && boot == j.BootID
}

// ours refuses a journal that came from another machine with its disk.
func (s *System) ours(j *Journal) error {
	if host := s.hostID(); j.Host != "" && host != "" && j.Host != host {
		return refused(fmt.Errorf("change %s is of another host (machine-id %s)", j.ID, j.Host))
	}
	return nil
}

// recover brings a journal that was found to its end.
func (s *System) recover(ctx context.Context, st *store, j *Journal) error {
	if err := s.ours(j); err != nil {
		return err
	}
	if j.State.Final() {
		if err := s.sweep(j.Steps); err != nil {
			return fmt.Errorf("%w: %w", ErrLeft, err)
		}
		if err := st.archive(j); err != nil {
			return fmt.Errorf("%w: %w", ErrLeft, err)
		}
		return nil
	}
	err := s.undo(ctx, st, j, fmt.Errorf("interrupted in state %s", j.State))
	return err
}

// Recover undoes what an interrupted run left, at boot or by hand: nil when
// there was nothing to do, or when all of it is undone now. A change of this
// boot that still waits for its confirmation is left alone, unless its time is
// up.
func (s *System) Recover(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	st, err := s.waitStore(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return refused(err)
	}
	defer st.close()
	j, err := st.load()
	if err != nil {
		return refused(err)
	}
	if j == nil {
		return refusedIf(st.state.unlink("." + journalName + tempSuffix))
	}
	if s.waits(j) {
		s.say("change %s waits to be confirmed until %s", j.ID, j.Deadline.Format(time.RFC3339))
		return nil
	}
	err = s.recover(ctx, st, j)
	if errors.Is(err, ErrRolledBack) {
		s.say("change %s is undone: %s", j.ID, j.Why)
		err = nil
	}
	return errors.Join(err, st.state.unlink("."+journalName+tempSuffix))
}

// Rollback undoes a change: the one that waits, or one of the history. id "" is
// the one at work, otherwise the last that was kept. With ifUnconfirmed (the
// watchdog) only a change that was not confirmed is undone, and everything else
// is fine as it is.
func (s *System) Rollback(ctx context.Context, id string, ifUnconfirmed bool) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	st, err := s.waitStore(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		if ifUnconfirmed {
			return nil
		}
		return refused(errors.New("there is no change to roll back"))
	}
	if err != nil {
		return refused(err)
	}
	defer st.close()
	j, err := st.load()
	if err != nil {
		return refused(err)
	}
	if j != nil && (id == "" || j.ID == id) {
		if j.State.Final() {
			err := s.recover(ctx, st, j)
			if ifUnconfirmed || err != nil || j.State != Committed {
				return err
			}
		} else {
			if err := s.ours(j); err != nil {
				return err
			}
			why := "rolled back by the operator"
			if ifUnconfirmed {
				why = "not confirmed in time"
			}
			return s.undone(j, ifUnconfirmed, s.undo(ctx, st, j, errors.New(why)))
		}
	}
	if ifUnconfirmed {
		return nil
	}
	if j != nil && !j.State.Final() {
		return refused(fmt.Errorf("change %s is not finished: roll it back or confirm it first", j.ID))
	}
	old, err := s.entry(st, id)
	if err != nil {
		return refused(err)
	}
	if old == nil {
		return refused(errors.New("there is no change to roll back"))
	}
	if old.State == RolledBack {
		s.say("change %s was rolled back already: %s", old.ID, old.Why)
		return nil
	}
	if err := s.ours(old); err != nil {
		return err
	}
	// A transaction of its own: interrupted, it is begun again from the journal.
	old.Kept = old.Kept || old.State == Committed
	old.State, old.Step = Intent, len(old.Steps)-1
	if err := st.room(); err != nil {
		return refused(err)
	}
	if err := st.save(old); err != nil {
		_ = st.state.unlink(journalName)
		return refused(err)
	}
	return s.undone(old, false, s.undo(ctx, st, old, errors.New("rolled back by the operator")))
}

// undone: a rollback that was asked for has succeeded when all is rolled back.
func (s *System) undone(j *Journal, quiet bool, err error) error {
	if errors.Is(err, ErrRolledBack) {
		if !quiet {
			s.say("change %s is undone: %s", j.ID, j.subjects())
		}
		return nil
	}
	return err
}

// Confirm keeps the change that waits. Over SSH it must come by another
// connection than the change did: one that was open already proves nothing.
func (s *System) Confirm(ctx context.Context) (*Journal, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	st, err := s.waitStore(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refused(errors.New("no change waits to be confirmed"))
	}
	if err != nil {
		return nil, refused(err)
	}
	defer st.close()
	j, err := st.load()
	if err != nil {
		return nil, refused(err)
	}
	switch {
	case j == nil || j.State.Final():
		return nil, refused(errors.New("no change waits to be confirmed"))
	case j.State != Applied || !j.Wait:
		return nil, refused(fmt.Errorf("change %s is not in place (%s)", j.ID, j.State))
	case !s.sameBoot(j):
		return nil, refused(fmt.Errorf("the host was restarted since change %s: it is undone by hostaudit recover", j.ID))
	case s.ours(j) != nil:
		return nil, s.ours(j)
	case j.boottimeLeft() <= 0:
		return j, s.undo(ctx, st, j, errors.New("not confirmed in time"))
	case j.Login.Same(s.Login):
		return nil, refused(errors.New("this is the connection that the change was made over, which proves nothing: confirm from a new login"))
	case s.Login.Older(j.AppliedBoot):
		return nil, refused(errors.New("this connection was open before the change, which proves nothing: confirm from a new login"))
	}
	return j, s.keep(ctx, st, j)
}
