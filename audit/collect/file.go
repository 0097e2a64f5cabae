package collect

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/sysctl"
)

// Limits of a saved capture: far above what a real host gives, low enough that
// a hostile file does not eat the machine.
const (
	maxFile       = 256 << 20 // of the decompressed file
	maxNamespaces = 4096
)

// Save writes a capture: gzip over one JSON object whose "schema" is [Schema].
func Save(w io.Writer, c *Capture) error {
	z := gzip.NewWriter(w)
	if err := json.NewEncoder(z).Encode(c); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// Load reads what [Save] wrote and decodes it as it was decoded on the host: the
// same answers offline. What the file lacks is a gap of the snapshot. A file of
// another kind or a later version is an error.
func Load(r io.Reader) (*audit.Snapshot, error) { return load(r, maxFile) }

func load(r io.Reader, limit int64) (*audit.Snapshot, error) {
	c, err := decodeFile(r, limit)
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	return c.Snapshot()
}

func decodeFile(r io.Reader, limit int64) (*Capture, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("not a snapshot of hostaudit: %w", err)
	}
	body := &io.LimitedReader{R: z, N: limit + 1}
	c := new(Capture)
	d := json.NewDecoder(body)
	err = d.Decode(c)
	switch {
	case body.N <= 0:
		return nil, fmt.Errorf("larger than %d bytes", limit)
	case err != nil:
		return nil, fmt.Errorf("not a snapshot of hostaudit, or damaged: %w", err)
	case c.Schema != Schema:
		return nil, fmt.Errorf("its schema is %.60q, this program reads %q", c.Schema, Schema)
	case len(c.Taken) == 0:
		return nil, errors.New("it holds no network namespace")
	case len(c.Taken) > maxNamespaces:
		return nil, fmt.Errorf("it holds %d network namespaces, more than %d", len(c.Taken), maxNamespaces)
	}
	if c.Files != nil {
		for name, n := range c.Files.Nodes {
			if n == nil {
				return nil, fmt.Errorf("damaged: the file %.60q is empty", name)
			}
		}
	}
	// What follows the object would be lost in silence; the end also proves the
	// checksum of the compression.
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("damaged: there is more behind its end")
	}
	return c, nil
}

// Snapshot decodes a capture.
func (c *Capture) Snapshot() (*audit.Snapshot, error) {
	var o Options
	for _, text := range c.Options.Ask {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("read snapshot: %w", err)
		}
		o.Ask = append(o.Ask, a)
	}
	if len(c.Taken) == 0 {
		return nil, errors.New("read snapshot: it holds no network namespace")
	}
	s := &audit.Snapshot{Meta: c.Meta.meta(), Sysctls: c.Sysctls, Files: c.Files, Samples: c.Samples, Census: c.Census, Timings: c.Timings,
		SockStat: c.SockStat, Conntrack: c.Conntrack, Memory: c.Memory}
	if c.Keys != nil {
		s.Keys = sysctl.NewKeySet(c.Keys)
	}
	host := recordedAnswers(c.Host, c.order())
	var list []*decoded
	for i := range c.Taken {
		list = append(list, c.Taken[i].replay(context.Background(), c, host, o))
	}
	var gaps []audit.Gap
	for _, g := range c.Gaps {
		gaps = append(gaps, audit.Gap(g))
	}
	assemble(s, c.Reader, list, gaps)
	return s, nil
}
