package diagnose

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// question is a query of RFC 1035, recursion desired, with EDNS0 for answers of
// up to 1232 bytes.
func question(id uint16, name string, typ uint16) ([]byte, error) {
	b := binary.BigEndian.AppendUint16(nil, id)
	b = append(b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1)
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label == "" || len(label) > 63 {
			return nil, fmt.Errorf("%q is no name to look up", name)
		}
		b = append(append(b, byte(len(label))), label...)
	}
	b = append(b, 0)
	b = binary.BigEndian.AppendUint16(b, typ)
	b = append(b, 0, 1)
	return append(b, 0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0), nil
}

var errShort = errors.New("the answer is cut off")

// parseAnswer reads a message into a.
func parseAnswer(b []byte, id uint16, a *DNSAnswer) error {
	if len(b) < 12 {
		return errShort
	}
	if binary.BigEndian.Uint16(b) != id || b[2]&0x80 == 0 {
		return errors.New("the answer is to another question")
	}
	questions, answers := int(binary.BigEndian.Uint16(b[4:])), int(binary.BigEndian.Uint16(b[6:]))
	off := 12
	for range questions {
		_, n, err := dnsName(b, off)
		if err != nil {
			return err
		}
		off = n + 4
	}
	for range answers {
		_, n, err := dnsName(b, off)
		if err != nil {
			return err
		}
		if n+10 > len(b) {
			return errShort
		}
		typ, size := binary.BigEndian.Uint16(b[n:]), int(binary.BigEndian.Uint16(b[n+8:]))
		data := n + 10
		if data+size > len(b) {
			return errShort
		}
		switch {
		case typ == typeA && size == 4, typ == typeAAAA && size == 16:
			x, _ := netip.AddrFromSlice(b[data : data+size])
			a.Addrs = append(a.Addrs, x)
		case typ == typeCNAME:
			if c, _, err := dnsName(b, data); err == nil {
				a.CNAMEs = append(a.CNAMEs, c)
			}
		}
		off = data + size
	}
	switch rcode := b[3] & 15; {
	case rcode == 3:
		a.Outcome = "nxdomain"
	case rcode == 2:
		a.Outcome = "servfail"
	case rcode == 5:
		a.Outcome = "refused"
	case rcode != 0:
		a.Outcome, a.Why = "error", fmt.Sprintf("response code %d", rcode)
	case len(a.Addrs) == 0:
		a.Outcome = "no-data"
	default:
		a.Outcome = "ok"
	}
	return nil
}

// dnsName reads a name with its compression, and gives the offset behind it.
func dnsName(b []byte, off int) (string, int, error) {
	var out bytes.Buffer
	end := -1
	for range 128 {
		if off >= len(b) {
			return "", 0, errShort
		}
		n := int(b[off])
		switch {
		case n == 0:
			if end < 0 {
				end = off + 1
			}
			if out.Len() == 0 {
				return ".", end, nil
			}
			return out.String(), end, nil
		case n&0xc0 == 0xc0:
			if off+1 >= len(b) {
				return "", 0, errShort
			}
			if end < 0 {
				end = off + 2
			}
			off = n&0x3f<<8 | int(b[off+1])
		case n > 63 || off+1+n > len(b):
			return "", 0, errShort
		default:
			out.Write(bytes.ToLower(b[off+1 : off+1+n]))
			out.WriteByte('.')
			if out.Len() > 255 {
				return "", 0, errors.New("a name in the answer is too long")
			}
			off += 1 + n
		}
	}
	return "", 0, errors.New("a name in the answer does not end")
}
