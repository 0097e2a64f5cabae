package diagnose

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
)

var (
	errNoTable = errors.New("the database has no such table")
	errSQLite  = errors.New("the database is damaged or of an unknown form")
)

// sqliteRows reads a table of an SQLite 3 database file (www.sqlite.org/
// fileformat2.html): rows by column name, with nil, int64, float64, string or
// []byte. It reads table b-trees with overflow pages, and no write-ahead log.
func sqliteRows(file []byte, table string) ([]map[string]any, error) {
	d := &sqliteFile{b: file}
	if len(file) < 100 || string(file[:16]) != "SQLite format 3\x00" {
		return nil, errSQLite
	}
	d.size = int(binary.BigEndian.Uint16(file[16:]))
	if d.size == 1 {
		d.size = 65536
	}
	if d.size < 512 || d.size&(d.size-1) != 0 {
		return nil, errSQLite
	}
	d.usable = d.size - int(file[20])
	if d.usable < 480 {
		return nil, errSQLite
	}
	if enc := binary.BigEndian.Uint32(file[56:]); enc != 1 && enc != 0 {
		return nil, errors.New("the database is not in UTF-8")
	}
	root, columns := 0, []string(nil)
	err := d.walk(1, 0, func(row []any) {
		if len(row) >= 5 && row[0] == "table" {
			name, _ := row[1].(string)
			if page, ok := row[3].(int64); ok && strings.EqualFold(name, table) && page > 0 && page < math.MaxInt32 {
				sql, _ := row[4].(string)
				root, columns = int(page), columnNames(sql)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	if root == 0 {
		return nil, errNoTable
	}
	var out []map[string]any
	err = d.walk(root, 0, func(row []any) {
		m := map[string]any{}
		for i, v := range row {
			if i < len(columns) {
				m[columns[i]] = v
			}
		}
		out = append(out, m)
	})
	return out, err
}

// columnNames takes the names out of a CREATE TABLE.
func columnNames(sql string) []string {
	_, body, ok := strings.Cut(sql, "(")
	if !ok {
		return nil
	}
	var out []string
	depth, start := 0, 0
	add := func(s string) {
		f := strings.Fields(s)
		if len(f) == 0 {
			return
		}
		name := strings.ToLower(strings.Trim(f[0], "`\"[]'"))
		switch name {
		case "primary", "unique", "check", "foreign", "constraint":
			return
		}
		out = append(out, name)
	}
	for i, r := range body {
		switch r {
		case '(':
			depth++
		case ')':
			if depth == 0 {
				add(body[start:i])
				return out
			}
			depth--
		case ',':
			if depth == 0 {
				add(body[start:i])
				start = i + 1
			}
		}
	}
	return out
}

type sqliteFile struct {
	b            []byte
	size, usable int
	pages        int // visited, against rings
	taken        int // bytes of cells: more than the file has are some of them twice
}

func (d *sqliteFile) page(n int) ([]byte, int, error) {
	if d.pages++; n < 1 || d.pages > 100_000 || n > len(d.b)/d.size {
		return nil, 0, errSQLite
	}
	head := 0
	if n == 1 {
		head = 100
	}
	return d.b[(n-1)*d.size : n*d.size], head, nil
}

func (d *sqliteFile) walk(n, depth int, row func([]any)) error {
	p, h, err := d.page(n)
	if err != nil || depth > 20 {
		return errSQLite
	}
	kind, cells := p[h], int(binary.BigEndian.Uint16(p[h+3:]))
	array := h + 8
	if kind == 5 {
		array = h + 12
	}
	if kind != 5 && kind != 13 || array+2*cells > len(p) {
		return errSQLite
	}
	for i := range cells {
		off := int(binary.BigEndian.Uint16(p[array+2*i:]))
		if off+4 > len(p) {
			return errSQLite
		}
		if kind == 5 {
			if err := d.walk(int(binary.BigEndian.Uint32(p[off:])), depth+1, row); err != nil {
				return err
			}
			continue
		}
		payload, err := d.payload(p, off)
		if err != nil {
			return err
		}
		r, err := record(payload)
		if err != nil {
			return err
		}
		row(r)
	}
	if kind == 5 {
		return d.walk(int(binary.BigEndian.Uint32(p[h+8:])), depth+1, row)
	}
	return nil
}

// payload gathers a leaf cell's bytes, overflow pages included.
func (d *sqliteFile) payload(p []byte, off int) ([]byte, error) {
	size, n := varint(p[off:])
	if n == 0 || size > uint64(len(d.b)) {
		return nil, errSQLite
	}
	off += n
	_, n = varint(p[min(off, len(p)):])
	if n == 0 {
		return nil, errSQLite
	}
	off += n
	total, limit := int(size), d.usable-35
	const around = 2 + 1 + 1 // its place in the page, and at least a byte each of length and row number
	if d.taken += around + total; d.taken > len(d.b) {
		return nil, errSQLite
	}
	local := total
	if total > limit {
		short := (d.usable-12)*32/255 - 23
		local = short + (total-short)%(d.usable-4)
		if local > limit {
			local = short
		}
	}
	if off+local > len(p) {
		return nil, errSQLite
	}
	out := append([]byte(nil), p[off:off+local]...)
	if local == total {
		return out, nil
	}
	if off+local+4 > len(p) {
		return nil, errSQLite
	}
	for next := int(binary.BigEndian.Uint32(p[off+local:])); next != 0 && len(out) < total; {
		q, _, err := d.page(next)
		if err != nil {
			return nil, err
		}
		next = int(binary.BigEndian.Uint32(q))
		out = append(out, q[4:4+min(d.usable-4, total-len(out))]...)
	}
	if len(out) != total {
		return nil, errSQLite
	}
	return out, nil
}

// record decodes the serial types of one row.
func record(b []byte) ([]any, error) {
	head, n := varint(b)
	if n == 0 || head > uint64(len(b)) {
		return nil, errSQLite
	}
	types, body := b[n:max(int(head), n)], b[head:]
	var out []any
	for len(types) > 0 {
		t, n := varint(types)
		if n == 0 {
			return nil, errSQLite
		}
		types = types[n:]
		size := 0
		switch {
		case t <= 4:
			size = int(t)
		case t == 5:
			size = 6
		case t == 6, t == 7:
			size = 8
		case t >= 12:
			if t-12 > uint64(2*len(body)+1) {
				return nil, errSQLite
			}
			size = int(t-12) / 2
		}
		if size > len(body) {
			return nil, errSQLite
		}
		v := body[:size]
		body = body[size:]
		switch {
		case t == 0:
			out = append(out, nil)
		case t <= 6:
			x := int64(0)
			for i, c := range v {
				if i == 0 {
					x = int64(int8(c))
				} else {
					x = x<<8 | int64(c)
				}
			}
			out = append(out, x)
		case t == 7:
			out = append(out, math.Float64frombits(binary.BigEndian.Uint64(v)))
		case t == 8, t == 9:
			out = append(out, int64(t-8))
		case t >= 12 && t%2 == 0:
			out = append(out, append([]byte(nil), v...))
		case t >= 13:
			out = append(out, string(v))
		default:
			return nil, errSQLite
		}
	}
	return out, nil
}

func varint(b []byte) (uint64, int) {
	var v uint64
	for i := range 9 {
		if i >= len(b) {
			return 0, 0
		}
		if i == 8 {
			return v<<8 | uint64(b[i]), 9
		}
		v = v<<7 | uint64(b[i]&0x7f)
		if b[i]&0x80 == 0 {
			return v, i + 1
		}
	}
	return 0, 0
}
