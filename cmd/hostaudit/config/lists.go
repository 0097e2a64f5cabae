package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hostaudit/hostaudit/audit"
)

// Protocols that `protocol:` may name.
var protocols = []string{
	"tcp", "udp", "http", "https", "http2", "http3", "grpc", "websocket", "ws", "wss", "tls", "text", "frame", "ssh", "dns", "smtp", "smtps", "imap", "imaps", "pop3", "pop3s",
	"ftp", "ldap", "ldaps", "mqtt", "amqp", "mysql", "postgresql", "redis", "memcached", "mongodb", "fastcgi", "quic", "wireguard", "openvpn", "ntp", "sip", "rtmp", "rtsp", "rdp", "vnc", "smb", "nfs", "syslog", "snmp",
}

func (d *decoder) services(n *yaml.Node) ([]audit.Service, error) {
	out := []audit.Service{}
	err := d.list(n, "services", func(at string, n *yaml.Node) error {
		s := audit.Service{Proto: "tcp", Source: d.place(n)}
		var audience *yaml.Node
		keys := []string{"name", "port", "proto", "audience", "protocol"}
		err := d.mapping(n, at, keys, func(key string, v *yaml.Node) error {
			name := at + "." + key
			var text string
			var err error
			switch key {
			case "name":
				s.Name, err = d.scalar(v, name, "!!str", notEmpty)
			case "proto":
				s.Proto, err = d.scalar(v, name, "!!str", oneOf("tcp", "udp"))
			case "protocol":
				s.Protocol, err = d.scalar(v, name, "!!str", oneOf(protocols...))
			case "port":
				if text, err = d.scalar(v, name, integer, isPort); err == nil {
					p, _ := strconv.ParseUint(text, 10, 16)
					s.Port = uint16(p)
				}
			case "audience":
				audience = v
				s.Audience, err = d.audience(v, name)
			}
			return err
		})
		if err != nil {
			return err
		}
		switch {
		case s.Name == "":
			return d.fail(n, at, "a service needs a name")
		case s.Port == 0:
			return d.fail(n, at, "a service needs a port")
		case audience == nil:
			return d.fail(n, at, "a service needs an audience: everyone, host, or a list of networks")
		}
		for _, other := range out {
			if other.Proto == s.Proto && other.Port == s.Port {
				return d.fail(n, at, "%s is configured twice, first as %q (%s)", s.Subject(), other.Name, other.Source)
			}
		}
		out = append(out, s)
		return nil
	})
	return out, err
}

func (d *decoder) audience(n *yaml.Node, key string) (audit.Audience, error) {
	switch n.Kind {
	case yaml.ScalarNode:
		text, err := d.scalar(n, key, "!!str", func(s string) error {
			if s == "everyone" || s == "host" {
				return nil
			}
			if _, err := network(s); err == nil {
				return fmt.Errorf("a network stands in a list: [%s]", s)
			}
			return fmt.Errorf("%q is neither everyone nor host nor a list of networks%s", s, nearest(s, []string{"everyone", "host"}))
		})
		if text == "host" {
			return audit.Audience{Kind: audit.ForHost}, err
		}
		return audit.Audience{Kind: audit.ForEveryone}, err
	case yaml.SequenceNode:
		if len(n.Content) == 0 {
			return audit.Audience{}, d.fail(n, key, "an empty list: nobody is meant to reach it; write host for this host only")
		}
	}
	a := audit.Audience{Kind: audit.ForNetworks}
	err := d.list(n, key, func(at string, n *yaml.Node) error {
		text, err := d.scalar(n, at, "!!str", func(s string) error { _, err := network(s); return err })
		if err != nil {
			return err
		}
		p, _ := network(text)
		a.Networks = append(a.Networks, p)
		return nil
	})
	if err == nil && len(a.Networks) == 0 {
		return a, d.fail(n, key, "nothing where everyone, host or a list of networks is expected")
	}
	return a, err
}

// network reads a prefix or an address.
func network(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q: an address with an interface is no network", s)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is not a network such as 10.0.0.0/8", s)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%s has bits set beyond its length; did you mean %s?", s, p.Masked())
	}
	return p, nil
}

var findingID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9]*\.[a-z0-9][a-z0-9-]*$`) })

func (d *decoder) waivers(n *yaml.Node) ([]audit.Waiver, error) {
	out := []audit.Waiver{}
	err := d.list(n, "accept", func(at string, n *yaml.Node) error {
		w := audit.Waiver{Source: d.place(n)}
		err := d.mapping(n, at, []string{"id", "subject", "reason", "until"}, func(key string, v *yaml.Node) error {
			name := at + "." + key
			var err error
			switch key {
			case "id":
				w.ID, err = d.scalar(v, name, "!!str", func(s string) error {
					if !findingID().MatchString(s) {
						return fmt.Errorf("%q is not the id of a finding, such as listener.loopback-only", s)
					}
					return nil
				})
			case "subject":
				w.Subject, err = d.scalar(v, name, "!!str", notEmpty)
			case "reason":
				w.Reason, err = d.scalar(v, name, "!!str", notEmpty)
			case "until":
				w.Until, err = d.day(v, name)
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, need := range []struct{ key, value string }{{"id", w.ID}, {"subject", w.Subject}, {"reason", w.Reason}} {
			if need.value == "" {
				return d.fail(n, at, "needs %s", map[string]string{"id": "an id", "subject": "a subject", "reason": "a reason"}[need.key])
			}
		}
		if i := slices.IndexFunc(out, func(o audit.Waiver) bool { return o.ID == w.ID && o.Subject == w.Subject }); i >= 0 {
			return d.fail(n, at, "stands twice, first at %s", out[i].Source)
		}
		out = append(out, w)
		return nil
	})
	return out, err
}

// day reads a date; YAML gives an unquoted one a type of its own.
func (d *decoder) day(n *yaml.Node, key string) (time.Time, error) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!timestamp" && n.Tag != "!!str" {
		return time.Time{}, d.fail(n, key, "%s where a date such as 2027-06-30 is expected", nodeWord(n))
	}
	t, err := time.Parse(audit.DateForm, n.Value)
	if err != nil {
		return time.Time{}, d.fail(n, key, "%q is not a date such as 2027-06-30", n.Value)
	}
	return t, nil
}

func isPort(s string) error {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("%s is not a port from 1 to 65535", s)
	}
	return nil
}

func notEmpty(s string) error {
	if strings.TrimSpace(s) == "" {
		return fmt.Errorf("is empty")
	}
	return nil
}
