package collect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/listeners"
)

// answer is what the kernel said to one question: the parts of a dump, one
// part for a file; and the error that came, if one did.
type answer struct {
	Key   string               `json:"key"`
	Parts [][]byte             `json:"parts,omitempty"`
	Err   *listeners.TapeError `json:"error,omitempty"`
}

// answers puts the questions that this package asks itself, keeps the answers
// where a recording is wanted, and gives them again where it is replayed. Each
// question has a key; one that is asked again replaces its first answer.
type answers struct {
	order  binary.ByteOrder // of the machine that gave the answers
	replay bool
	keep   bool

	mu   sync.Mutex
	by   map[string]answer
	keys []string // in the order they were asked
}

func liveAnswers(keep bool) *answers {
	return &answers{order: binary.NativeEndian, keep: keep, by: map[string]answer{}}
}

func recordedAnswers(list []answer, order binary.ByteOrder) *answers {
	a := &answers{order: order, replay: true, by: make(map[string]answer, len(list))}
	for _, it := range list {
		a.by[it.Key] = it
	}
	return a
}

// get gives the answer to the question named key. live asks it.
func (a *answers) get(key string, live func() ([][]byte, error)) ([][]byte, error) {
	if a.replay {
		it, ok := a.by[key]
		if !ok {
			return nil, fmt.Errorf("%s: %w", key, listeners.ErrNotRecorded)
		}
		if it.Err != nil {
			return it.Parts, it.Err
		}
		return it.Parts, nil
	}
	parts, err := live()
	if a.keep {
		a.mu.Lock()
		defer a.mu.Unlock()
		if _, again := a.by[key]; !again {
			a.keys = append(a.keys, key)
		}
		a.by[key] = answer{Key: key, Parts: parts, Err: recordedError(err)}
	}
	return parts, err
}

// one is get for a question with a single part as its answer.
func (a *answers) one(key string, live func() ([]byte, error)) ([]byte, error) {
	parts, err := a.get(key, func() ([][]byte, error) {
		b, err := live()
		return [][]byte{b}, err
	})
	if err != nil {
		return nil, err
	}
	if len(parts) == 0 {
		return nil, nil // an empty part is not kept
	}
	return parts[0], nil
}

// recording gives what was kept, in the order it was asked.
func (a *answers) recording() []answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []answer // nil for none, as a saved one comes back
	for _, k := range a.keys {
		out = append(out, a.by[k])
	}
	return out
}

// recordedError keeps an error so that errors.Is still finds its errno.
func recordedError(err error) *listeners.TapeError {
	if err == nil {
		return nil
	}
	e := &listeners.TapeError{Text: err.Error()}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		e.Errno = unix.ErrnoName(errno)
	}
	return e
}
