package remedy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"time"
)

// ApplyOptions say how a plan is carried out.
type ApplyOptions struct {
	// Again makes the plan anew from a fresh reading, under the lock: a plan with
	// another id means that the host has changed, and nothing is done.
	Again func(context.Context) (*Plan, error)
	// Verify judges a fresh reading after the live steps: an error rolls back.
	// nil: every step is read back and nothing more.
	Verify func(context.Context) error
	// Wait: the change is kept only when Confirm says so before Deadline.
	Wait bool
	// Deadline is the time after which the watchdog undoes what was not confirmed;
	// 0 means 120 s.
	Deadline time.Duration
}

// Apply carries a plan out. nil means that all of it is live, verified and on
// disk; a plan without steps writes nothing at all. It ends with ErrRefused,
// ErrRolledBack or ErrLeft otherwise.
func (s *System) Apply(ctx context.Context, p *Plan, o ApplyOptions) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if len(p.Steps) == 0 {
		return s.Pending()
	}
	if o.Deadline == 0 {
		o.Deadline = 120 * time.Second
	}
	if os.Geteuid() != 0 {
		return refused(errors.New("changing the host needs root"))
	}
	st, err := s.openStore(true)
	if err != nil {
		return refused(err)
	}
	defer func() { st.close() }()
	if err := s.clear(ctx, st); err != nil {
		return err
	}
	if err := st.room(); err != nil {
		return refused(err)
	}
	if err := s.programs(p.Steps); err != nil {
		return refused(err)
	}
	if o.Again != nil {
		now, err := o.Again(ctx)
		if err != nil {
			return refused(err)
		}
		if now.ID != p.ID {
			return refused(fmt.Errorf("the host has changed since the plan (%s, now %s): look at the plan again", p.ID, now.ID))
		}
	}
	j, err := s.begin(p, o)
	if err != nil {
		return refused(err)
	}
	j.Seq = st.next()
	if err := s.stillBefore(ctx, j.Steps); err != nil {
		return refused(err)
	}
	if err := st.save(j); err != nil {
		// It may or may not be on disk; the host is untouched either way.
		_ = st.state.unlink(journalName)
		return refused(err)
	}
	fail := func(why error) error { return s.undo(ctx, st, j, why) }
	if j.Watchdog, err = s.Watch.Arm(ctx, j.ID, o.Deadline); err != nil {
		return fail(fmt.Errorf("arm the watchdog: %w", err))
	}
	if err := s.carryOut(ctx, st, j, Live); err != nil {
		return fail(err)
	}
	if o.Verify != nil {
		if err := o.Verify(ctx); err != nil {
			return fail(fmt.Errorf("verify: %w", err))
		}
	}
	j.State, j.AppliedBoot = Applied, int64(sinceBoot())
	if err := st.save(j); err != nil {
		return fail(err)
	}
	if !o.Wait {
		return s.keep(ctx, st, j)
	}
	if left := j.boottimeLeft(); left > 0 {
		s.say("change %s is in place and verified: keep it within %s with hostaudit confirm, from a new login, or it is rolled back", j.ID, left.Round(time.Second))
	}
	// Whoever confirms needs the lock.
	st.close()
	st, err = s.await(ctx, j)
	if st == nil {
		st = &store{lock: -1}
	}
	return err
}

// Pending is an ErrRefused while a change waits or was cut off: what a plan finds in
// place may be taken back. It writes nothing.
func (s *System) Pending() error {
	d, err := openDir(s.root(), s.State, false, 0, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return refused(err)
	}
	defer d.close()
	j, err := readJournal(d, journalName)
	switch {
	case err != nil:
		return refused(err)
	case j != nil && s.waits(j):
		return refused(fmt.Errorf("change %s waits to be confirmed for another %s: hostaudit confirm keeps it, hostaudit rollback %s undoes it", j.ID, j.boottimeLeft().Round(time.Second), j.ID))
	case j != nil && !j.State.Final():
		return refused(fmt.Errorf("change %s is not finished (%s): hostaudit recover undoes what was interrupted", j.ID, j.State))
	}
	return nil
}

// begin writes the first page of the journal.
func (s *System) begin(p *Plan, o ApplyOptions) (*Journal, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	ns, err := netNS()
	if err != nil {
		return nil, err
	}
	now := s.Now().UTC()
	return &Journal{
		Schema: JournalSchema, ID: p.ID, State: Intent, Step: -1, BootID: boot, Host: s.hostID(), NetNS: ns, Started: now,
		Deadline: now.Add(o.Deadline), DeadlineBoot: int64(sinceBoot() + o.Deadline), Tool: s.Tool, Login: s.Login, Wait: o.Wait, Steps: p.Steps, Changes: p.Changes,
	}, nil
}

// stillBefore: a plan is carried out only on the state that it was made for.
func (s *System) stillBefore(ctx context.Context, steps []Step) error {
	for i := range steps {
		at, what, err := s.observe(ctx, &steps[i])
		if err != nil {
			return err
		}
		if at != isBefore {
			return fmt.Errorf("%s is not as it was when the plan was made: %s", &steps[i], what)
		}
	}
	return nil
}

// stillAfter: a change is kept only while all of it is in place.
func (s *System) stillAfter(ctx context.Context, steps []Step) error {
	for i := range steps {
		if steps[i].Phase != Live {
			continue
		}
		at, what, err := s.observe(ctx, &steps[i])
		if err != nil {
			return err
		}
		if at != isAfter {
			return fmt.Errorf("%s is not in place any more, somebody else changed it while it waited%s", &steps[i], prefixed(": ", what))
		}
	}
	return nil
}

// carryOut does the steps of a phase, each named in the journal before it begins
// and read back after it.
func (s *System) carryOut(ctx context.Context, st *store, j *Journal, phase Phase) error {
	for i := range j.Steps {
		step := &j.Steps[i]
		if step.Phase != phase {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("interrupted: %w", context.Cause(ctx))
		}
		// Somebody else may have been at it since the plan was checked.
		at, what, err := s.observe(ctx, step)
		if err != nil {
			return err
		}
		if at == elsewhere {
			return fmt.Errorf("%s was changed by somebody else meanwhile: %s", step, what)
		}
		j.Step = i
		if err := st.save(j); err != nil {
			return err
		}
		if err := s.set(ctx, step, true); err != nil {
			return err
		}
		// Only what a fresh reading shows is done.
		if at, what, err = s.observe(ctx, step); err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		if at != isAfter {
			return fmt.Errorf("%s: the change was not taken%s", step, prefixed(": ", what))
		}
	}
	return nil
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// keep makes a confirmed change last: files, then the word that ends it.
func (s *System) keep(ctx context.Context, st *store, j *Journal) error {
	j.State = Confirmed
	if err := st.save(j); err != nil {
		return s.undo(ctx, st, j, err)
	}
	if j.Wait {
		// It has been verified a while ago: somebody else may have loaded the rules anew.
		if err := s.stillAfter(ctx, j.Steps); err != nil {
			return s.undo(ctx, st, j, err)
		}
	}
	if err := s.carryOut(ctx, st, j, Persist); err != nil {
		return s.undo(ctx, st, j, err)
	}
	j.State, j.Ended = Committed, s.Now().UTC()
	if err := st.save(j); err != nil {
		return s.undo(ctx, st, j, err)
	}
	// From here on it is done, whatever happens.
	if err := st.archive(j); err != nil {
		s.say("the change is kept; its journal could not be filed: %v", err)
	}
	s.Watch.Disarm(ctx, j.ID)
	return nil
}

// await waits for somebody else to confirm or to roll back, and rolls back at the
// deadline or when this run is interrupted or its login ends.
func (s *System) await(ctx context.Context, j *Journal) (*store, error) {
	// Without a terminal nothing hangs up when the login ends.
	loggedIn := s.Login.there()
	for faults := 0; ; {
		left := time.Duration(j.DeadlineBoot) - sinceBoot()
		if left > 0 && ctx.Err() == nil {
			t := time.NewTimer(min(left, s.Poll))
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
			}
		}
		st, now, err := s.look()
		if errors.Is(err, errLocked) {
			time.Sleep(min(s.Poll, 50*time.Millisecond))
			continue
		}
		if err != nil {
			// A passing fault is no reason to give up while there is time.
			over := ctx.Err() != nil || sinceBoot() >= time.Duration(j.DeadlineBoot)
			if faults++; over && faults >= 3 {
				return nil, fmt.Errorf("%w: while waiting for the confirmation: %w", ErrLeft, err)
			}
			time.Sleep(min(s.Poll, 50*time.Millisecond))
			continue
		}
		if now == nil || now.ID != j.ID || now.DeadlineBoot != j.DeadlineBoot { // or the same plan anew
			return st, s.ended(st, j.ID)
		}
		switch {
		case ctx.Err() != nil:
			return st, s.undo(context.WithoutCancel(ctx), st, now, fmt.Errorf("interrupted before it was confirmed: %w", context.Cause(ctx)))
		case sinceBoot() >= time.Duration(now.DeadlineBoot):
			return st, s.undo(ctx, st, now, errors.New("not confirmed in time"))
		case loggedIn && !s.Login.there():
			return st, s.undo(ctx, st, now, errors.New("the login that it was made over has ended before it was confirmed"))
		}
		st.close()
	}
}

// look takes the lock and reads the journal, nil where there is none.
func (s *System) look() (*store, *Journal, error) {
	st, err := s.openStore(false)
	if err != nil {
		return nil, nil, err
	}
	j, err := st.load()
	if err != nil {
		st.close()
		return nil, nil, err
	}
	return st, j, nil
}

// ended tells how a transaction that somebody else ended has ended.
func (s *System) ended(st *store, id string) error {
	j, err := readJournal(st.history, id+".json")
	switch {
	case err != nil:
		return fmt.Errorf("%w: its entry of the history: %w", ErrLeft, err)
	case j == nil:
		return fmt.Errorf("%w: change %s is not in the history", ErrLeft, id)
	}
	return j.outcome()
}

// outcome is the error that a finished transaction stands for.
func (j *Journal) outcome() error {
	switch j.State {
	case Committed:
		return nil
	case RolledBack:
		return fmt.Errorf("%w: %s", ErrRolledBack, j.Why)
	default:
		return leftError(j)
	}
}

// boottimeLeft is how much of the time to confirm is left.
func (j *Journal) boottimeLeft() time.Duration { return time.Duration(j.DeadlineBoot) - sinceBoot() }
