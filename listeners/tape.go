package listeners

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/listeners/sockdiag"
)

// Tape is a recording of everything one [Read] asked a [Source], to be stored in
// a snapshot. It is plain data; [Tape.Play] makes it a Source again.
type Tape struct {
	BigEndian bool       `json:"big_endian,omitempty"` // byte order of the recording machine
	NetNS     uint64     `json:"netns"`
	Kernel    string     `json:"kernel"`
	Answers   []TapeItem `json:"answers"`
}

// TapeItem is one answer: the datagrams of a dump, or the bytes of a file or
// the name of an interface; and the error that came, if one did.
type TapeItem struct {
	Key       string     `json:"key"`
	Datagrams [][]byte   `json:"datagrams,omitempty"`
	Data      []byte     `json:"data,omitempty"`
	Err       *TapeError `json:"error,omitempty"`
}

// TapeError keeps an error well enough for errors.Is to find its errno and the
// sentinels of package sockdiag.
type TapeError struct {
	Text        string `json:"text"`
	Errno       string `json:"errno,omitempty"` // "EACCES": numbers differ between architectures
	Unsupported bool   `json:"unsupported,omitempty"`
	Interrupted bool   `json:"interrupted,omitempty"`
}

func (e *TapeError) Error() string { return e.Text }

// Unwrap gives the errors that the text stands for.
func (e *TapeError) Unwrap() []error {
	var errs []error
	if e.Unsupported {
		errs = append(errs, sockdiag.ErrUnsupported)
	}
	if e.Interrupted {
		errs = append(errs, sockdiag.ErrInterrupted)
	}
	if errno := errnoByName(e.Errno); errno != 0 {
		errs = append(errs, errno)
	}
	return errs
}

func tapeError(err error) *TapeError {
	if err == nil {
		return nil
	}
	e := &TapeError{Text: err.Error(), Unsupported: errors.Is(err, sockdiag.ErrUnsupported), Interrupted: errors.Is(err, sockdiag.ErrInterrupted)}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		e.Errno = unix.ErrnoName(errno)
	}
	return e
}

func errnoByName(name string) syscall.Errno {
	if name == "" {
		return 0
	}
	for n := syscall.Errno(1); n < 200; n++ {
		if unix.ErrnoName(n) == name {
			return n
		}
	}
	return 0
}

// Recorder passes questions on to another Source and keeps the answers.
type Recorder struct {
	src  Source
	tape Tape
}

// NewRecorder records what is asked of src.
func NewRecorder(src Source) *Recorder {
	return &Recorder{src: src, tape: Tape{BigEndian: nativeIsBig(), NetNS: src.NetNS(), Kernel: src.Kernel()}}
}

// Tape gives the recording so far.
func (r *Recorder) Tape() Tape { return r.tape }

// Dump implements [sockdiag.Source].
func (r *Recorder) Dump(ctx context.Context, q sockdiag.Query, receive func([]byte) error) error {
	item := TapeItem{Key: "dump " + q.Key()}
	err := r.src.Dump(ctx, q, func(datagram []byte) error {
		item.Datagrams = append(item.Datagrams, bytes.Clone(datagram))
		return receive(datagram)
	})
	item.Err = tapeError(err)
	r.tape.Answers = append(r.tape.Answers, item)
	return err
}

// NetFile implements [Source].
func (r *Recorder) NetFile(ctx context.Context, name string) ([]byte, error) {
	b, err := r.src.NetFile(ctx, name)
	r.tape.Answers = append(r.tape.Answers, TapeItem{Key: "net " + name, Data: b, Err: tapeError(err)})
	return b, err
}

// DeviceName implements [Source].
func (r *Recorder) DeviceName(index int) (string, error) {
	name, err := r.src.DeviceName(index)
	r.tape.Answers = append(r.tape.Answers, TapeItem{Key: deviceKey(index), Data: []byte(name), Err: tapeError(err)})
	return name, err
}

// NetNS implements [Source].
func (r *Recorder) NetNS() uint64 { return r.src.NetNS() }

// Kernel implements [Source].
func (r *Recorder) Kernel() string { return r.src.Kernel() }

func deviceKey(index int) string { return fmt.Sprintf("device %d", index) }

// Player answers from a tape: each key in the order it was recorded, the last
// answer again when there are no more. What was never asked is an error.
type Player struct {
	tape Tape
	byID map[string][]int
}

// Play starts the tape from its beginning.
func (t Tape) Play() *Player {
	p := &Player{tape: t, byID: map[string][]int{}}
	for i, it := range t.Answers {
		p.byID[it.Key] = append(p.byID[it.Key], i)
	}
	return p
}

// ErrNotRecorded says that the recording holds no answer to this question.
var ErrNotRecorded = errors.New("not in the recording")

func (p *Player) next(key string) (TapeItem, error) {
	left := p.byID[key]
	if len(left) == 0 {
		return TapeItem{}, fmt.Errorf("%s: %w", key, ErrNotRecorded)
	}
	it := p.tape.Answers[left[0]]
	if len(left) > 1 {
		p.byID[key] = left[1:]
	}
	if it.Err != nil {
		return it, it.Err
	}
	return it, nil
}

// Dump implements [sockdiag.Source]. The datagrams are in the byte order of
// [Player.ByteOrder].
func (p *Player) Dump(ctx context.Context, q sockdiag.Query, receive func([]byte) error) error {
	item, err := p.next("dump " + q.Key())
	for _, datagram := range item.Datagrams {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := receive(datagram); err != nil {
			return err
		}
	}
	return err
}

// NetFile implements [Source].
func (p *Player) NetFile(ctx context.Context, name string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	item, err := p.next("net " + name)
	return item.Data, err
}

// DeviceName implements [Source].
func (p *Player) DeviceName(index int) (string, error) {
	item, err := p.next(deviceKey(index))
	return string(item.Data), err
}

// NetNS implements [Source].
func (p *Player) NetNS() uint64 { return p.tape.NetNS }

// Kernel implements [Source].
func (p *Player) Kernel() string { return p.tape.Kernel }

// ByteOrder is the order of the recording machine.
func (p *Player) ByteOrder() binary.ByteOrder {
	if p.tape.BigEndian {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

func nativeIsBig() bool { return binary.NativeEndian.Uint16([]byte{0, 1}) == 1 }

// orderOf gives the byte order in which a source's datagrams come.
func orderOf(src Source) binary.ByteOrder {
	if o, ok := src.(interface{ ByteOrder() binary.ByteOrder }); ok {
		return o.ByteOrder()
	}
	return nativeOrder()
}

// nativeOrder is binary.NativeEndian by the name that libraries ask for.
func nativeOrder() binary.ByteOrder {
	if nativeIsBig() {
		return binary.BigEndian
	}
	return binary.LittleEndian
}
