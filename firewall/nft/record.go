package nft

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"syscall"
)

// Recorder is a Source that keeps what another one answered, so that it can be
// written to a file and answered again by Replay. A question that is asked
// once more replaces its first answer.
type Recorder struct {
	src     Source
	order   []Request
	answers map[Request]*answer
}

// answer is what came for one request: messages, then perhaps an error.
type answer struct {
	messages []byte // each with its length before it
	err      error
}

// Record returns a recorder in front of src.
func Record(src Source) *Recorder {
	return &Recorder{src: src, answers: map[Request]*answer{}}
}

func (r *Recorder) begin(req Request) *answer {
	if a, ok := r.answers[req]; ok {
		*a = answer{}
		return a
	}
	a := &answer{}
	r.order = append(r.order, req)
	r.answers[req] = a
	return a
}

func (a *answer) add(msg []byte) {
	a.messages = binary.AppendUvarint(a.messages, uint64(len(msg)))
	a.messages = append(a.messages, msg...)
}

// Dump implements Source.
func (r *Recorder) Dump(ctx context.Context, req Request) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		a := r.begin(req)
		for msg, err := range r.src.Dump(ctx, req) {
			if err != nil {
				a.err = err
			} else {
				a.add(msg)
			}
			if !yield(msg, err) {
				return
			}
		}
	}
}

// Get implements Source.
func (r *Recorder) Get(ctx context.Context, req Request) ([]byte, error) {
	a := r.begin(req)
	msg, err := r.src.Get(ctx, req)
	if err != nil {
		a.err = err
		return nil, err
	}
	a.add(msg)
	return msg, nil
}

const recordMagic = "nftdump1"

// MarshalBinary returns everything that was recorded.
func (r *Recorder) MarshalBinary() ([]byte, error) {
	b := []byte(recordMagic)
	for _, req := range r.order {
		a := r.answers[req]
		b = append(b, req.Subsystem, req.Type, req.Family)
		b = appendBlob(b, []byte(req.Attrs))
		b = appendBlob(b, a.messages)
		var errno syscall.Errno
		text := ""
		if a.err != nil {
			text = a.err.Error()
			var e *Error
			if errors.As(a.err, &e) {
				text = e.Err.Error()
			}
			errors.As(a.err, &errno)
		}
		b = binary.AppendUvarint(b, uint64(errno))
		b = appendBlob(b, []byte(text))
	}
	return b, nil
}

func appendBlob(b, blob []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(blob)))
	return append(b, blob...)
}

// Replay returns a Source that answers out of what a Recorder wrote. A request
// that was not recorded is an error.
func Replay(b []byte) (Source, error) {
	rest, ok := bytes.CutPrefix(b, []byte(recordMagic))
	if !ok {
		return nil, &DecodeError{"recording", errors.New("not a recording of nf_tables")}
	}
	p := replay{}
	for len(rest) > 0 {
		if len(rest) < 3 {
			return nil, &DecodeError{"recording", errShort}
		}
		req := Request{Subsystem: rest[0], Type: rest[1], Family: rest[2]}
		rest = rest[3:]
		var attrs, text []byte
		var errno uint64
		a := answer{}
		var good [4]bool
		attrs, rest, good[0] = cutBlob(rest)
		a.messages, rest, good[1] = cutBlob(rest)
		errno, rest, good[2] = cutNumber(rest)
		text, rest, good[3] = cutBlob(rest)
		if good != [4]bool{true, true, true, true} {
			return nil, &DecodeError{"recording", errShort}
		}
		req.Attrs = string(attrs)
		switch {
		case errno != 0:
			a.err = &Error{"replay", req.object(), syscall.Errno(errno)}
		case string(text) == ErrInterrupted.Error():
			a.err = &Error{"replay", req.object(), ErrInterrupted}
		case len(text) > 0:
			a.err = &Error{"replay", req.object(), errors.New(string(text))}
		}
		p[req] = a
	}
	return p, nil
}

func cutNumber(b []byte) (uint64, []byte, bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 {
		return 0, nil, false
	}
	return n, b[k:], true
}

func cutBlob(b []byte) (blob, rest []byte, ok bool) {
	n, rest, ok := cutNumber(b)
	if !ok || n > uint64(len(rest)) {
		return nil, nil, false
	}
	return rest[:n:n], rest[n:], true
}

// replay is a Source of recorded answers.
type replay map[Request]answer

func (p replay) Dump(_ context.Context, req Request) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		a, ok := p[req]
		if !ok {
			yield(nil, &Error{"replay", req.object(), fmt.Errorf("the recording does not hold it")})
			return
		}
		for rest := a.messages; len(rest) > 0; {
			msg, tail, ok := cutBlob(rest)
			if !ok {
				yield(nil, &Error{"replay", req.object(), errShort})
				return
			}
			rest = tail
			if !yield(msg, nil) {
				return
			}
		}
		if a.err != nil {
			yield(nil, a.err)
		}
	}
}

func (p replay) Get(_ context.Context, req Request) ([]byte, error) {
	a, ok := p[req]
	if !ok {
		return nil, &Error{"replay", req.object(), fmt.Errorf("the recording does not hold it")}
	}
	if a.err != nil {
		return nil, a.err
	}
	msg, _, ok := cutBlob(a.messages)
	if !ok {
		return nil, &Error{"replay", req.object(), errShort}
	}
	return msg, nil
}
