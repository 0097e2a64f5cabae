package remedy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// State is where a transaction stands.
type State string

// The states. The last three are final.
const (
	Intent     State = "intent"      // announced; Journal.Step says how far it went
	Applied    State = "applied"     // live and verified, waits to be confirmed
	Confirmed  State = "confirmed"   // is being written to disk
	Committed  State = "committed"   // kept, live and on disk
	RolledBack State = "rolled-back" // everything is as it was
	Incomplete State = "incomplete"  // Journal.Left says what could not be undone
)

// Final says whether nothing is left to be done.
func (s State) Final() bool { return s == Committed || s == RolledBack || s == Incomplete }

// JournalSchema names the form of a journal.
const JournalSchema = "hostaudit/journal/v1"

// Journal is one transaction as it is kept on disk, from before the first change
// on. Afterwards it is its entry of the history.
type Journal struct {
	Schema string `json:"schema"`
	ID     string `json:"id"`
	State  State  `json:"state"`
	// Step is the index of the last step that was begun, -1 before the first.
	Step    int       `json:"step"`
	BootID  string    `json:"boot_id"`
	Host    string    `json:"host"`  // /etc/machine-id, "" where there is none
	NetNS   uint64    `json:"netns"` // inode of the network namespace
	Started time.Time `json:"started"`
	// Seq counts the changes of this host: clocks can be set back.
	Seq   int       `json:"seq,omitempty"`
	Ended time.Time `json:"ended,omitzero"`
	// Deadline is when a change that was not confirmed is undone: wall clock for
	// people, and nanoseconds of CLOCK_BOOTTIME, which no one can set.
	Deadline     time.Time `json:"deadline"`
	DeadlineBoot int64     `json:"deadline_boot"`
	// AppliedBoot is when all of it was live, on the same clock.
	AppliedBoot int64  `json:"applied_boot,omitempty"`
	Tool        string `json:"tool"`
	// Login is the connection that the change was made over.
	Login    Login  `json:"login,omitzero"`
	Watchdog string `json:"watchdog,omitempty"`
	// Wait: once applied it waits to be confirmed. Otherwise its run goes on by
	// itself, and an open journal means that it died.
	Wait bool `json:"wait"`
	// Kept: it had been committed, and is being rolled back on request.
	Kept    bool     `json:"kept,omitempty"`
	Steps   []Step   `json:"steps"`
	Changes []Change `json:"changes"`
	// Why says what ended the transaction, where it did not end well.
	Why  string   `json:"why,omitempty"`
	Left []string `json:"left,omitempty"`
}

// subjects names what a change is about.
func (j *Journal) subjects() string {
	var out []string
	for _, c := range j.Changes {
		if !slices.Contains(out, c.Subject) {
			out = append(out, c.Subject)
		}
	}
	if len(out) == 0 {
		return fmt.Sprintf("%d steps", len(j.Steps))
	}
	return strings.Join(out, ", ")
}

// journalMagic begins a journal: then a blank, the length of what follows the
// first line and its SHA-256.
const journalMagic = "hostaudit-journal"

// encode gives the bytes of a journal.
func (j *Journal) encode() ([]byte, error) {
	body, err := json.Marshal(j)
	if err != nil {
		return nil, fmt.Errorf("encode journal: %w", err)
	}
	sum := sha256.Sum256(body)
	head := fmt.Sprintf("%s %d %s\n", journalMagic, len(body), hex.EncodeToString(sum[:]))
	return append([]byte(head), body...), nil
}

// errJournal says that a file is no journal of ours: truncated, changed, of a
// later version. Nothing is done on its word.
var errJournal = errors.New("not a sound journal")

// decodeJournal is the inverse of encode. It trusts nothing.
func decodeJournal(b []byte) (*Journal, error) {
	line, body, ok := bytes.Cut(b, []byte("\n"))
	fields := strings.Fields(string(line[:min(len(line), 200)]))
	if !ok || len(fields) != 3 || fields[0] != journalMagic {
		return nil, fmt.Errorf("%w: no header", errJournal)
	}
	if n, err := strconv.Atoi(fields[1]); err != nil || n != len(body) {
		return nil, fmt.Errorf("%w: it holds %d bytes, the header says %s", errJournal, len(body), fields[1])
	}
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != fields[2] {
		return nil, fmt.Errorf("%w: its checksum is wrong", errJournal)
	}
	var j Journal
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return nil, fmt.Errorf("%w: %w", errJournal, err)
	}
	if err := j.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", errJournal, err)
	}
	return &j, nil
}

// check holds a journal to its rules.
func (j *Journal) check() error {
	switch {
	case j.Schema != JournalSchema:
		return fmt.Errorf("its form is %q, this program knows %q", j.Schema, JournalSchema)
	case !isID(j.ID):
		return fmt.Errorf("bad id %q", j.ID)
	case j.State != Intent && j.State != Applied && j.State != Confirmed && !j.State.Final():
		return fmt.Errorf("bad state %q", j.State)
	case j.Step < -1 || j.Step >= len(j.Steps):
		return fmt.Errorf("step %d of %d", j.Step, len(j.Steps))
	}
	for i := range j.Steps {
		if err := j.Steps[i].check(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

// isID says whether a text is the id of a plan: what a file may be named after.
func isID(s string) bool {
	if len(s) != idLen {
		return false
	}
	_, err := hex.DecodeString(s)
	return err == nil && s == strings.ToLower(s)
}

// The places below the state directory.
const (
	journalName = "journal"
	historyName = "history"
)

// keepHistory is how many entries of the history are kept.
const keepHistory = 50

// store is the state directory, open and locked.
type store struct {
	sys                 *System
	state, history, run *dir
	lock                int
}

// errLocked: another run holds the lock, or a program that one has started and that
// goes on without it.
var errLocked = errors.New("another run of hostaudit is at work")

// waitStore is openStore for those who end a change: it waits for a program that a
// killed run has left behind at its work, and for another run, as long as the first can
// take.
func (s *System) waitStore(ctx context.Context) (*store, error) {
	until := sinceBoot() + s.ToolTime + 5*time.Second
	for said := false; ; said = true {
		st, err := s.openStore(false)
		if !errors.Is(err, errLocked) || sinceBoot() >= until || ctx.Err() != nil {
			return st, err
		}
		if !said {
			s.say("%v: waiting for it", err)
		}
		time.Sleep(min(s.Poll, 50*time.Millisecond))
	}
}

// openStore opens the state directory and takes the lock. Without create a
// missing state directory is fs.ErrNotExist.
func (s *System) openStore(create bool) (_ *store, err error) {
	st := &store{sys: s, lock: -1}
	defer func() {
		if err != nil {
			st.close()
		}
	}()
	if st.state, err = openDir(s.root(), s.State, create, 0o700, true); err != nil {
		return nil, err
	}
	if st.history, err = openDir(s.root(), s.State+"/"+historyName, true, 0o700, true); err != nil {
		return nil, err
	}
	if st.run, err = openDir(s.root(), s.Run, true, 0o700, true); err != nil {
		return nil, err
	}
	// The file stays for ever: whoever removed it would let two in.
	st.lock, err = unix.Openat(st.run.fd, "lock", unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: st.run.name + "/lock", Err: err}
	}
	if err := unix.Flock(st.lock, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			holder := make([]byte, 32)
			n, _ := unix.Pread(st.lock, holder, 0)
			return nil, fmt.Errorf("%w (pid %s holds %s/lock)", errLocked, strings.TrimSpace(string(holder[:max(n, 0)])), st.run.name)
		}
		return nil, fmt.Errorf("lock %s/lock: %w", st.run.name, err)
	}
	// Advisory: nobody decides by it.
	_, _ = unix.Pwrite(st.lock, fmt.Appendf(nil, "%-20d\n", os.Getpid()), 0)
	s.at = st
	return st, nil
}

func (st *store) close() {
	for _, d := range []*dir{st.state, st.history, st.run} {
		if d != nil {
			d.close()
		}
	}
	if st.lock >= 0 {
		unix.Close(st.lock)
		st.sys.at = nil
	}
}

// load reads the journal, nil where there is none.
func (st *store) load() (*Journal, error) { return readJournal(st.state, journalName) }

func readJournal(d *dir, name string) (*Journal, error) {
	f, err := d.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if int(f.stat.Uid) != os.Geteuid() || f.stat.Mode&0o022 != 0 {
		return nil, fmt.Errorf("%s/%s: %w: others can write it", d.name, name, errJournal)
	}
	j, err := decodeJournal(f.data)
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", d.name, name, err)
	}
	return j, nil
}

// save puts the journal on disk.
func (st *store) save(j *Journal) error {
	b, err := j.encode()
	if err != nil {
		return err
	}
	return st.state.write(journalName, b, 0o600, nil)
}

// archive moves a finished journal into the history, so that a healthy boot finds
// none.
func (st *store) archive(j *Journal) error {
	if err := unix.Renameat(st.state.fd, journalName, st.history.fd, j.ID+".json"); err != nil {
		return fmt.Errorf("move the journal into the history: %w", err)
	}
	if err := errors.Join(st.history.sync(), st.state.sync()); err != nil {
		return err
	}
	st.prune()
	return nil
}
