package diagnose

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
)

// proxyFor finds the proxy setting that a program would use for the target.
func proxyFor(t Target, settings []ProxySetting) *ProxySetting {
	want := map[string][]string{
		"http": {"http_proxy", "all_proxy"}, "ws": {"ws_proxy", "http_proxy", "all_proxy"}, "https": {"https_proxy", "all_proxy"}, "wss": {"wss_proxy", "https_proxy", "all_proxy"},
	}[t.Scheme]
	if want == nil {
		want = []string{"all_proxy"}
	}
	for _, s := range settings {
		if strings.EqualFold(s.Name, "no_proxy") && exempt(t, s.Value) {
			return nil
		}
	}
	for _, name := range want {
		for i, s := range settings {
			if strings.EqualFold(s.Name, name) {
				return &settings[i]
			}
		}
	}
	return nil
}

// exempt reads no_proxy as curl and Go do: names, suffixes, addresses, prefixes.
func exempt(t Target, list string) bool {
	for item := range strings.SplitSeq(list, ",") {
		item = strings.ToLower(strings.TrimSpace(item))
		host, port, ok := strings.Cut(item, ":")
		if ok && !strings.Contains(port, ":") {
			if port != itoa(int(t.Port)) {
				continue
			}
			item = host
		}
		switch {
		case item == "":
		case item == "*":
			return true
		case t.Addr.IsValid():
			if p, err := netip.ParsePrefix(item); err == nil && p.Contains(t.Addr) {
				return true
			}
			if a, err := netip.ParseAddr(strings.Trim(item, "[]")); err == nil && a == t.Addr {
				return true
			}
		default:
			item = strings.TrimPrefix(strings.TrimPrefix(item, "*"), ".")
			if h := strings.ToLower(t.Host); h == item || strings.HasSuffix(h, "."+item) {
				return true
			}
		}
	}
	return t.Addr.IsLoopback() || strings.EqualFold(t.Host, "localhost")
}

// ProxyAddr reads host and port of a proxy setting.
func (s *ProxySetting) ProxyAddr() (host string, port uint16, ok bool) {
	v := s.Value
	if !strings.Contains(v, "://") {
		v = "http://" + v
	}
	u, err := url.Parse(v)
	if err != nil || u.Hostname() == "" {
		return "", 0, false
	}
	port = map[string]uint16{"http": 80, "https": 443}[u.Scheme]
	if port == 0 {
		port = 1080
	}
	if p := u.Port(); p != "" {
		n, err := parsePort(p)
		if err != nil {
			return "", 0, false
		}
		port = n
	}
	return u.Hostname(), port, true
}

// ProxyOf is the proxy that programs on this host would use for a target, nil
// for none.
func ProxyOf(t Target, h *HostFacts) *ProxySetting {
	if h == nil {
		return nil
	}
	return proxyFor(t, h.Proxies)
}

// proxy judges the client's proxy settings.
func (j *judge) proxy() {
	e := j.e
	if e.Side == SideServer {
		j.unsure(ClientProxy, "it shows on the client alone (here only as a foreign source address); run `hostaudit diagnose %s --pid PID` there", e.Target.Text)
		return
	}
	f := e.clientFacts()
	const remedy = "correct the proxy, or exempt the target: no_proxy"
	direct := slices.ContainsFunc(e.Attempts, func(a Attempt) bool { return a.Sees == Connected })
	set := e.ProxySetting
	var ev []audit.Evidence
	if set != nil {
		ev = append(ev, evidence(set.Source, "%s=%s", set.Name, redact(set.Value)))
	}
	switch {
	case set != nil && e.Proxy != nil && e.Proxy.Sees != Connected && (direct || len(e.Attempts) == 0):
		j.say(ClientProxy, Confirmed, remedy, append(ev, evidence("connection to the proxy", "%s: %s", e.Proxy.To, orWord(e.Proxy.Errno, "no answer")))...)
	case set != nil && e.Proxy != nil && e.Proxy.Sees != Connected:
		j.say(ClientProxy, Likely, remedy, append(ev, evidence("connection to the proxy", "%s: %s", e.Proxy.To, orWord(e.Proxy.Errno, "no answer")))...)
	case e.Symptom != nil && e.Symptom.Kind == KindProxy:
		j.say(ClientProxy, Likely, remedy, append(ev, evidence("the client's message", "%s", e.Symptom.Text))...)
	case set != nil && direct && e.Symptom != nil && e.Symptom.Sees != "":
		j.say(ClientProxy, Likely, remedy, append(ev, evidence("connection from here", "without the proxy it connects"))...)
	case f.Preload != "":
		j.say(ClientProxy, Likely, "run the program without it to see the difference", evidence("environment", "LD_PRELOAD=%s", f.Preload))
	case set != nil:
		j.say(ClientProxy, CannotTell, remedy, append(ev, evidence("to decide", "connect with the proxy switched off for that one process"))...)
	case j.carried():
	case len(e.Attempts) > 0 && !j.accused(ClientProxy) && e.Symptom == nil:
		j.clear(ClientProxy, "connection from here", "it was made without a proxy, and no setting names one")
	case e.Facts != nil && e.Facts.PID > 0 && !j.accused(ClientProxy):
		j.clear(ClientProxy, "environment", "process %d has no proxy setting for this target", e.Facts.PID)
	default:
		j.unsure(ClientProxy, "the settings of the very process: --pid PID")
	}
}

// redact hides the name and password of a proxy's URL; a password may hold an @.
func redact(v string) string {
	if i := strings.LastIndex(v, "@"); i >= 0 {
		scheme, _, ok := strings.Cut(v[:i], "://")
		if ok {
			return scheme + "://…@" + v[i+1:]
		}
		return "…@" + v[i+1:]
	}
	return v
}
