package reach

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/hostaudit/hostaudit/firewall"
)

// ParseQuery reads one line of `reach --batch`: the query object of the
// contract, with an optional id. Unknown fields, missing ones and impossible
// values are errors.
func ParseQuery(line []byte) (id string, q Query, err error) {
	var j struct {
		ID *string `json:"id"`
		QueryJSON
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return "", q, fmt.Errorf("parse query: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return "", q, fmt.Errorf("parse query: more than one object on the line")
	}
	if j.ID != nil {
		id = *j.ID
	}
	q, err = j.Query()
	return id, q, err
}

// Query checks a query and gives it its types.
func (j QueryJSON) Query() (Query, error) {
	q := Query{FromPort: j.FromPort, Port: j.Port, Iif: j.Iif}
	var err error
	if q.Proto, err = ParseProto(j.Proto); err != nil {
		return q, err
	}
	if j.Port == 0 {
		return q, fmt.Errorf("port is missing or 0")
	}
	if j.From != "" {
		if q.From, err = netip.ParseAddr(j.From); err != nil {
			return q, fmt.Errorf("from: %w", err)
		}
		q.From = q.From.Unmap()
	}
	if j.To != "" {
		if q.To, err = netip.ParseAddr(j.To); err != nil {
			return q, fmt.Errorf("to: %w", err)
		}
		q.To = q.To.Unmap()
	}
	if q.From.IsValid() && q.To.IsValid() && q.From.Is4() != q.To.Is4() {
		return q, fmt.Errorf("from %s and to %s are of different address families", q.From, q.To)
	}
	return q, nil
}

// ParseProto reads the name of a transport protocol; "" is tcp.
func ParseProto(s string) (firewall.Proto, error) {
	switch strings.ToLower(s) {
	case "", "tcp":
		return firewall.TCP, nil
	case "udp":
		return firewall.UDP, nil
	case "udplite":
		return firewall.UDPLite, nil
	case "sctp":
		return firewall.SCTP, nil
	case "dccp":
		return firewall.DCCP, nil
	default:
		return 0, fmt.Errorf("proto %q is not one of tcp, udp, udplite, sctp, dccp", s)
	}
}
