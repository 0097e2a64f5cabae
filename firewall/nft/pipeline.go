package nft

import (
	"encoding/binary"
)

// pipelineChunk is how many bytes of messages go to the decoder at a time.
// Decoding on the side lets the kernel's list stay in the receiving core's
// cache: it is walked from its head for every datagram. What is left when the
// last datagram has come is waited for, so a chunk is small.
const pipelineChunk = 64 << 10

// pipeline decodes messages in another goroutine, in order, while the caller
// receives the next ones. A few chunks at most are under way.
type pipeline struct {
	chunk []byte
	full  chan []byte
	free  chan []byte
	done  chan struct{}
	err   error // of the decoder; read after done
}

func startPipeline(decode func([]byte) error) *pipeline {
	const chunks = 8
	p := &pipeline{full: make(chan []byte, chunks), free: make(chan []byte, chunks), done: make(chan struct{})}
	for range chunks - 1 {
		p.free <- nil
	}
	go func() {
		defer close(p.done)
		for b := range p.full {
			for rest := b; len(rest) > 0 && p.err == nil; {
				n := binary.NativeEndian.Uint32(rest)
				p.err = decode(rest[4 : 4+n])
				rest = rest[4+n:]
			}
			p.free <- b[:0]
		}
	}()
	return p
}

// add queues a copy of a message.
func (p *pipeline) add(msg []byte) error {
	if len(p.chunk) > 0 && len(p.chunk)+len(msg)+4 > pipelineChunk {
		p.full <- p.chunk
		p.chunk = <-p.free
	}
	if cap(p.chunk) == 0 {
		p.chunk = make([]byte, 0, pipelineChunk)
	}
	p.chunk = binary.NativeEndian.AppendUint32(p.chunk, uint32(len(msg)))
	p.chunk = append(p.chunk, msg...)
	return nil
}

// finish waits for the decoder and returns its error.
func (p *pipeline) finish() error {
	if len(p.chunk) > 0 {
		p.full <- p.chunk
	}
	close(p.full)
	<-p.done
	return p.err
}
