package webserver

import (
	"strconv"
	"strings"
	"time"
)

// forward says where the request goes, and whether an upgrade goes with it.
func (r *nginxRequest) forward(d *directive) {
	a := r.a
	a.Does, a.Action = Forwards, d.note()
	target, known := r.value(d.arg(0))
	proto := strings.TrimSuffix(d.name, "_pass")
	if proto == "proxy" {
		var rest string
		var ok bool
		if proto, rest, ok = strings.Cut(target, "://"); !ok {
			proto, rest = "", target
		}
		target = rest
	}
	a.Scheme = proto
	if proto == "grpc" {
		target = strings.TrimPrefix(strings.TrimPrefix(target, "grpc://"), "grpcs://")
	}
	if known {
		port := uint16(0)
		switch proto {
		case "http":
			port = 80
		case "https":
			port = 443
		}
		a.Backends = r.n.backends(r.s.outer.name, d, target, port)
	}
	if t := r.effective(strings.TrimSuffix(d.name, "_pass") + "_read_timeout"); t != nil {
		if v, ok := nginxTime(t.arg(0)); ok {
			a.Idle, a.IdleFrom = v, t.note()
		}
	} else {
		a.Idle, a.IdleFrom = 60*time.Second, Note{d.Place, strings.TrimSuffix(d.name, "_pass") + "_read_timeout is not set: 60 s"}
	}
	if d.name != "proxy_pass" {
		a.Upgrade = No
		a.Why = []Note{d.note()}
		a.Remedy = "give the WebSocket service a location of its own with proxy_pass: " + d.name + " forwards no upgrade"
		return
	}
	r.upgrade(d)
}

// upgrade tells whether the headers of an upgrade reach the backend: both are
// hop by hop (RFC 9110, 7.6.1) and get lost unless they are set anew.
func (r *nginxRequest) upgrade(pass *directive) {
	a := r.a
	a.Upgrade = Yes
	missing := func(t Tri, n Note) {
		if a.Upgrade == Yes || t == No {
			a.Upgrade = t
		}
		a.Why = append(a.Why, n)
	}
	var upgrade, connection *directive
	for _, d := range r.all("proxy_set_header") {
		switch strings.ToLower(d.arg(0)) {
		case "upgrade":
			upgrade = d
		case "connection":
			connection = d
		}
	}
	var lines []string
	for _, h := range []struct {
		d           *directive
		name, fills string
	}{{upgrade, "Upgrade", "$http_upgrade"}, {connection, "Connection", `"upgrade"`}} {
		line := "proxy_set_header " + h.name + " " + h.fills + ";"
		if h.d == nil {
			lines = append(lines, line)
			missing(No, Note{pass.Place, "the header " + h.name + " is not set for the backend (no proxy_set_header " + h.name + ")"})
			continue
		}
		v, ok := r.value(h.d.arg(1))
		switch {
		case !ok:
			missing(Unknown, h.d.note())
		case !strings.Contains(strings.ToLower(v), map[string]string{"Upgrade": "websocket", "Connection": "upgrade"}[h.name]):
			lines = append(lines, line)
			missing(No, h.d.note())
		}
	}
	switch d := r.effective("proxy_http_version"); {
	case d == nil: // 1.0 before 1.29.7; not every backend minds
		lines = append([]string{"proxy_http_version 1.1;"}, lines...)
		missing(Unknown, Note{pass.Place, "proxy_http_version is not set: nginx before 1.29.7 speaks HTTP/1.0 to the backend, which has no upgrade"})
	case d.arg(0) == "1.0":
		lines = append([]string{"proxy_http_version 1.1;"}, lines...)
		missing(No, d.note())
	}
	if d := r.effective("proxy_pass_request_headers"); d.arg(0) == "off" {
		missing(No, d.note())
	}
	if len(lines) > 0 {
		a.Remedy = "beside " + pass.text() + " (" + pass.Place.String() + ") add: " + strings.Join(lines, " ") + " and a long proxy_read_timeout; then nginx -t && nginx -s reload"
	}
}

// nginxTime reads a time: 60, 60s, 5m, 1h 30m.
func nginxTime(s string) (time.Duration, bool) {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	if strings.HasSuffix(s, "d") {
		n, err := strconv.ParseUint(strings.TrimSuffix(s, "d"), 10, 16)
		return time.Duration(n) * 24 * time.Hour, err == nil
	}
	d, err := time.ParseDuration(strings.ReplaceAll(s, " ", ""))
	return d, err == nil && d > 0
}
