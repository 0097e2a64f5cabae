package diagnose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// metadataLimit is the deadline of one question to a metadata service.
const metadataLimit = time.Second

// Metadata asks the cloud's metadata service for the public address (and, where
// it tells, the names of the security groups; their rules it never tells). It is
// a network action: callers ask for it only on request.
func Metadata(ctx context.Context, c *Cloud) error {
	link := netip.MustParseAddrPort("169.254.169.254:80")
	switch c.Metadata {
	case "":
		return errors.New("this provider tells nothing of use")
	case "aws":
		token, err := fetch(ctx, link, "PUT", "169.254.169.254", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60\r\n")
		if err != nil {
			return err
		}
		header := ""
		if token != "" && !strings.ContainsAny(token, "\r\n") {
			header = "X-aws-ec2-metadata-token: " + token + "\r\n"
		}
		if v, err := fetch(ctx, link, "GET", "169.254.169.254", "/latest/meta-data/public-ipv4", header); err == nil {
			c.Public = addresses(v)
		}
		groups, err := fetch(ctx, link, "GET", "169.254.169.254", "/latest/meta-data/security-groups", header)
		if err == nil {
			c.Groups = strings.Fields(groups)
		}
		return err
	case "google":
		v, err := fetch(ctx, link, "GET", "metadata.google.internal", "/computeMetadata/v1/instance/network-interfaces/0/access-configs/0/external-ip", "Metadata-Flavor: Google\r\n")
		c.Public = addresses(v)
		return err
	case "azure":
		v, err := fetch(ctx, link, "GET", "169.254.169.254", "/metadata/instance/network/interface/0/ipv4/ipAddress/0/publicIpAddress?api-version=2021-02-01&format=text", "Metadata: true\r\n")
		c.Public = addresses(v)
		return err
	}
	u, err := url.Parse(c.Metadata)
	if err != nil {
		return err
	}
	to := link
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		to = netip.AddrPortFrom(a, 80)
	}
	v, err := fetch(ctx, to, "GET", u.Hostname(), u.Path, "")
	c.Public = addresses(v)
	return err
}

func addresses(text string) []string {
	var out []string
	for _, f := range strings.Fields(text) {
		if a, err := netip.ParseAddr(f); err == nil {
			out = append(out, a.String())
		}
	}
	return out
}

// fetch is one plain HTTP request on a socket of the calling goroutine.
func fetch(ctx context.Context, to netip.AddrPort, method, host, path, header string) (string, error) {
	fd, err := dialSocket(to, unix.SOCK_STREAM)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	end := time.Now().Add(metadataLimit)
	if err := waitFor(ctx, fd, unix.POLLOUT, end); err != nil {
		return "", fmt.Errorf("connect to %s: %w", to, err)
	}
	req := method + " " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\nContent-Length: 0\r\n" + header + "\r\n"
	if _, err := unix.Write(fd, []byte(req)); err != nil {
		return "", fmt.Errorf("ask %s: %w", to, err)
	}
	var got []byte
	b := make([]byte, 4096)
	for len(got) < 64<<10 {
		if err := waitFor(ctx, fd, unix.POLLIN, end); err != nil {
			break
		}
		n, err := unix.Read(fd, b)
		if n <= 0 || err != nil {
			break
		}
		got = append(got, b[:n]...)
	}
	status, headers := parseHTTP(got)
	if status != 200 {
		return "", fmt.Errorf("ask %s for %s: status %d", to, path, status)
	}
	_, body, _ := bytes.Cut(got, []byte("\r\n\r\n"))
	if strings.EqualFold(headers["transfer-encoding"], "chunked") {
		_, body, _ = bytes.Cut(body, []byte("\r\n"))
		body, _, _ = bytes.Cut(body, []byte("\r\n0"))
	}
	return strings.TrimSpace(string(body)), nil
}
