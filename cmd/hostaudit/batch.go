package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/audit/report"
)

// maxLine bounds one query.
const maxLine = 64 << 10

// failedLine answers a line that is no query.
type failedLine struct {
	ID    string `json:"id,omitempty"`
	Line  int    `json:"line"`
	Error string `json:"error"`
}

// reachBatch answers one query a line. Answers stream: each is written when its
// question has been read, and nothing is kept.
func (a *app) reachBatch(cmd *cobra.Command, c *reachFlags) error {
	for _, name := range []string{"from", "proto", "iif", "from-port", "explain", "output"} {
		if cmd.Flags().Changed(name) {
			return usagef("--%s does not go with --batch: each line says for itself", name)
		}
	}
	s, err := a.settings(cmd, &c.common, "text", "json", "ndjson")
	if err != nil {
		return err
	}
	in := a.stdin
	if c.batch != "-" {
		f, err := openPlain(c.batch)
		if err != nil {
			return usage(err)
		}
		defer f.Close()
		in = f
	}
	r := bufio.NewReaderSize(in, maxLine)
	snap, err := a.read(&c.common, s, collect.Options{Quick: true, NoCensus: true, Ask: announced(in)})
	if err != nil {
		return err
	}
	a.ownNamespace(snap)
	ev := reach.New(&snap.World)
	w := bufio.NewWriterSize(a.stdout, 64<<10)
	bad := 0
	for n := 1; ; n++ {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var out any
		if err == nil {
			out, err = answer(ev, line)
		}
		if err != nil {
			var tooLong *lineError
			if !errors.As(err, &tooLong) {
				return fmt.Errorf("read queries: %w", err)
			}
			bad++
			out = failedLine{ID: tooLong.id, Line: n, Error: tooLong.Error()}
		}
		if err := report.Line(w, out); err != nil {
			return written(err)
		}
		if r.Buffered() == 0 { // who asks one by one waits for the answer
			if err := w.Flush(); err != nil {
				return written(err)
			}
		}
	}
	if err := w.Flush(); err != nil {
		return written(err)
	}
	if bad > 0 {
		return usagef("%d lines were no queries", bad)
	}
	return a.unread(snap)
}

func written(err error) error {
	if errors.Is(err, unix.EPIPE) {
		return nil
	}
	return fmt.Errorf("write answers: %w", err)
}

// lineError is a line that is no query.
type lineError struct {
	id  string
	err error
}

func (e *lineError) Error() string { return e.err.Error() }

func answer(ev *reach.Evaluator, line []byte) (reach.Answer, error) {
	id, q, err := reach.ParseQuery(line)
	if err != nil {
		return reach.Answer{}, &lineError{id, err}
	}
	ans, err := audit.Answer(ev, q, reach.WithPath)
	if err != nil {
		return reach.Answer{}, &lineError{id, err}
	}
	ans.ID = id
	return ans, nil
}

// readLine reads a line without its end. One that is too long is read over.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case err == nil || errors.Is(err, io.EOF) && len(line) > 0:
		return line, nil
	case !errors.Is(err, bufio.ErrBufferFull):
		return nil, err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return nil, &lineError{err: fmt.Errorf("line longer than %d bytes", maxLine)}
}

// announced are the clients that a file of queries asks about, so that sets too
// large to be read whole are asked for them. Standard input is not read ahead.
func announced(in io.Reader) []netip.Addr {
	f, ok := in.(*os.File)
	if !ok {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	const most = 4096
	r := bufio.NewReaderSize(io.NewSectionReader(f, 0, st.Size), maxLine)
	seen := map[netip.Addr]bool{}
	var out []netip.Addr
	for len(out) < most {
		line, err := readLine(r)
		var bad *lineError
		if err != nil && !errors.As(err, &bad) {
			break
		}
		if _, q, err := reach.ParseQuery(line); err == nil && q.From.IsValid() && !seen[q.From] {
			seen[q.From] = true
			out = append(out, q.From)
		}
	}
	return out
}
