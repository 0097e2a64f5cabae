package main

import (
	"bytes"
	"io"
)

// pages hold a report until it is whole. They do not move as they become more:
// the report of a big host is too long to be copied about.
type pages [][]byte

const pageSize = 256 << 10

func (p *pages) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		last := len(*p) - 1
		if last < 0 || len((*p)[last]) == cap((*p)[last]) {
			// Most reports are short: the first pages are small.
			*p = append(*p, make([]byte, 0, min(pageSize, 16<<10<<min(len(*p), 8))))
			last++
		}
		page := &(*p)[last]
		take := min(len(b), cap(*page)-len(*page))
		*page = append(*page, b[:take]...)
		b = b[take:]
	}
	return n, nil
}

// whole is all of it in one piece.
func (p *pages) whole() []byte { return bytes.Join(*p, nil) }

// WriteTo writes it all.
func (p *pages) WriteTo(w io.Writer) (n int64, err error) {
	for _, page := range *p {
		m, err := w.Write(page)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
