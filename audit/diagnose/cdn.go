package diagnose

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// cdnDate is when the embedded ranges were taken down. Ranges age: a match is
// "likely" at most when the list is older than cdnFresh.
var cdnDate = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

const cdnFresh = 2 * 365 * 24 * time.Hour

// cdn is one provider of accelerating proxies.
type cdn struct {
	name   string
	ranges []netip.Prefix
	// suffixes of the names that customers' names are aliases for.
	suffixes []string
	// ports that are proxied at all, nil for not known.
	ports []uint16
}

// cdns: Cloudflare's and Fastly's published lists (www.cloudflare.com/ips,
// api.fastly.com/public-ip-list), and CNAME suffixes of others.
var cdns = []cdn{
	{
		name: "Cloudflare",
		ranges: prefixes("173.245.48.0/20", "103.21.244.0/22", "103.22.200.0/22", "103.31.4.0/22", "141.101.64.0/18", "108.162.192.0/18", "190.93.240.0/20",
			"188.114.96.0/20", "197.234.240.0/22", "198.41.128.0/17", "162.158.0.0/15", "104.16.0.0/13", "104.24.0.0/14", "172.64.0.0/13", "131.0.72.0/22",
			"2400:cb00::/32", "2606:4700::/32", "2803:f800::/32", "2405:b500::/32", "2405:8100::/32", "2a06:98c0::/29", "2c0f:f248::/32"),
		suffixes: []string{"cdn.cloudflare.net."},
		ports:    []uint16{80, 8080, 8880, 2052, 2082, 2086, 2095, 443, 2053, 2083, 2087, 2096, 8443},
	},
	{
		name: "Fastly",
		ranges: prefixes("23.235.32.0/20", "43.249.72.0/22", "103.244.50.0/24", "103.245.222.0/23", "103.245.224.0/24", "104.156.80.0/20", "140.248.64.0/18",
			"140.248.128.0/17", "146.75.0.0/17", "151.101.0.0/16", "157.52.64.0/18", "167.82.0.0/17", "167.82.128.0/20", "167.82.160.0/20", "167.82.224.0/20",
			"172.111.64.0/18", "185.31.16.0/22", "199.27.72.0/21", "199.232.0.0/16", "2a04:4e40::/32", "2a04:4e42::/32"),
		suffixes: []string{"fastly.net.", "fastlylb.net."},
		ports:    []uint16{80, 443},
	},
	{name: "Akamai", suffixes: []string{"edgekey.net.", "edgesuite.net.", "akamaiedge.net.", "akamai.net.", "akamaized.net."}, ports: []uint16{80, 443}},
	{name: "CloudFront", suffixes: []string{"cloudfront.net."}, ports: []uint16{80, 443}},
	{name: "Alibaba Cloud CDN", suffixes: []string{"alicdn.com.", "kunlunca.com.", "kunlunaq.com.", "kunlunar.com.", "kunlunsl.com.", "kunluncan.com.", "kunlungr.com."}, ports: []uint16{80, 443}},
	{name: "Tencent Cloud CDN", suffixes: []string{"dnsv1.com.", "dnsv1.com.cn.", "cdn.dnsv1.com.", "tdnsv5.com.", "tcdn.qq.com."}, ports: []uint16{80, 443}},
	{name: "Wangsu", suffixes: []string{"wscdns.com.", "wsglb0.com.", "lxdns.com."}},
	{name: "Bunny", suffixes: []string{"b-cdn.net."}, ports: []uint16{80, 443}},
}

func prefixes(s ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(s))
	for i, p := range s {
		out[i] = netip.MustParsePrefix(p)
	}
	return out
}

// cdnOf finds the provider an address belongs to, or nil.
func cdnOf(a netip.Addr) (*cdn, netip.Prefix) {
	for i := range cdns {
		for _, p := range cdns[i].ranges {
			if p.Contains(a) {
				return &cdns[i], p
			}
		}
	}
	return nil, netip.Prefix{}
}

// cdnOfName finds the provider whose alias a name is.
func cdnOfName(cname string) *cdn {
	for i := range cdns {
		for _, s := range cdns[i].suffixes {
			if strings.HasSuffix(cname, "."+s) || cname == s {
				return &cdns[i]
			}
		}
	}
	return nil
}

// cdnOfHeaders finds the provider that answered.
func cdnOfHeaders(h map[string]string) string {
	switch {
	case h["cf-ray"] != "" || strings.EqualFold(h["server"], "cloudflare"):
		return "Cloudflare"
	case h["x-served-by"] != "" && strings.Contains(h["x-served-by"], "cache-"):
		return "Fastly"
	case h["x-amz-cf-id"] != "":
		return "CloudFront"
	case strings.HasPrefix(strings.ToLower(h["server"]), "akamai"):
		return "Akamai"
	case strings.Contains(h["via"], "kunlun") || h["eagleid"] != "":
		return "Alibaba Cloud CDN"
	}
	return ""
}

func (c *cdn) passes(port uint16) (passes, known bool) {
	return slices.Contains(c.ports, port), c.ports != nil
}

// privateRanges are addresses that the Internet does not route: RFC 1918, RFC
// 6598, RFC 3927, RFC 4193, RFC 4291.
var privateRanges = prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10")

// privateRange gives the private range of an address, invalid for none.
func privateRange(a netip.Addr) netip.Prefix {
	for _, p := range privateRanges {
		if p.Contains(a) {
			return p
		}
	}
	return netip.Prefix{}
}

// global tells addresses that clients on the Internet can dial.
func global(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !privateRange(a).IsValid()
}

// cdnStatus says what a status of Cloudflare's own tells about the server behind it
// (its documentation, "Cloudflare 5xx errors"); "" for any other status.
func cdnStatus(code int) string {
	switch code {
	case 520:
		return "the server answered it with something that is no HTTP answer, or closed the connection"
	case 521:
		return "the server refuses its connection: nothing listens there, or a firewall rejects it"
	case 522:
		return "its connection to the server times out: a firewall there drops it, or the server's address in its settings is wrong"
	case 523:
		return "it has no way to the server: the server's address in its settings is wrong, or the server is down"
	case 524:
		return "the server took its connection and gave no answer in time"
	case 525:
		return "its TLS handshake with the server fails"
	case 526:
		return "the server's certificate is not valid to it"
	case 527, 530:
		return "it has no working connection to the server"
	}
	return ""
}
