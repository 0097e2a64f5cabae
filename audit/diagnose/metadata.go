package diagnose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// metadataLimit is the deadline of one question to a metadata service.
const metadataLimit = time.Second

// metadataService is where and how a provider's is asked for the public address.
type metadataService struct {
	at, host string // address, and Host of the request
	header   string // of every request
	// token is asked for first where there is one; ttl and send name its headers.
	token, ttl, send string
	address          string
	groups           string // names of the security groups, "" where it does not tell
}

const linkLocal = "169.254.169.254"

// metadataServices by Cloud.Metadata, as the providers document them.
var metadataServices = map[string]metadataService{
	"aws": {at: linkLocal, token: "/latest/api/token", ttl: "X-aws-ec2-metadata-token-ttl-seconds", send: "X-aws-ec2-metadata-token",
		address: "/latest/meta-data/public-ipv4", groups: "/latest/meta-data/security-groups"},
	"google": {at: linkLocal, host: "metadata.google.internal", header: "Metadata-Flavor: Google",
		address: "/computeMetadata/v1/instance/network-interfaces/0/access-configs/0/external-ip"},
	"azure": {at: linkLocal, header: "Metadata: true",
		address: "/metadata/instance/network/interface/0/ipv4/ipAddress/0/publicIpAddress?api-version=2021-02-01&format=text"},
	"alibaba": {at: "100.100.100.200", token: "/latest/api/token", ttl: "X-aliyun-ecs-metadata-token-ttl-seconds", send: "X-aliyun-ecs-metadata-token",
		address: "/latest/meta-data/eipv4"},
	"tencent":      {at: "169.254.0.23", host: "metadata.tencentyun.com", address: "/latest/meta-data/public-ipv4"},
	"huawei":       {at: linkLocal, address: "/latest/meta-data/public-ipv4"},
	"digitalocean": {at: linkLocal, address: "/metadata/v1/interfaces/public/0/ipv4/address"},
	"hetzner":      {at: linkLocal, address: "/hetzner/v1/metadata/public-ipv4"},
}

// maxGroupNames and maxPublic bound what is believed of an answer.
const (
	maxGroupNames = 32
	maxPublic     = 8
)

// Metadata asks the cloud's metadata service for the public address (and, where
// it tells, the names of the security groups; their rules it never tells). It is
// a network action: callers ask for it only on request. It follows no redirect
// and sends nothing elsewhere.
func Metadata(ctx context.Context, c *Cloud) error {
	m, ok := metadataServices[c.Metadata]
	if !ok {
		return errors.New("this provider's service tells nothing of use")
	}
	to := netip.AddrPortFrom(netip.MustParseAddr(m.at), 80)
	host, header := orWord(m.host, m.at), ""
	if m.header != "" {
		header = m.header + "\r\n"
	}
	if m.token != "" {
		token, err := fetch(ctx, to, "PUT", host, m.token, header+m.ttl+": 60\r\n")
		var status statusError
		switch {
		case err == nil && token != "" && len(token) < 1024 && !strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
			header += m.send + ": " + token + "\r\n"
		case err == nil, errors.As(err, &status): // an older service, which wants none
		default:
			return err
		}
	}
	v, err := fetch(ctx, to, "GET", host, m.address, header)
	var status statusError
	switch {
	case err == nil:
		if c.Public = addresses(v); len(c.Public) == 0 {
			err = errors.New("it names no public address")
		}
	case errors.As(err, &status) && status.code == 404:
		err = errors.New("it knows no public address of this host (status 404)")
	}
	if m.groups != "" {
		if text, e := fetch(ctx, to, "GET", host, m.groups, header); e == nil {
			for line := range strings.Lines(text) {
				if line = strings.TrimSpace(line); line != "" && len(line) <= 255 && len(c.Groups) < maxGroupNames {
					c.Groups = append(c.Groups, line)
				}
			}
		}
	}
	return err
}

// statusError is an answer that is no success.
type statusError struct {
	what string
	code int
}

func (e statusError) Error() string { return fmt.Sprintf("ask %s: status %d", e.what, e.code) }

func addresses(text string) []string {
	var out []string
	for _, f := range strings.Fields(text) {
		if a, err := netip.ParseAddr(f); err == nil && global(a.Unmap()) && len(out) < maxPublic {
			out = append(out, a.Unmap().String())
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
		if err = waitFor(ctx, fd, unix.POLLIN, end); err != nil {
			break
		}
		var n int
		if n, err = unix.Read(fd, b); n <= 0 || err != nil {
			break
		}
		got = append(got, b[:n]...)
		if whole(got) {
			break
		}
	}
	status, headers := parseHTTP(got)
	switch {
	case status == 0 && len(got) > 0:
		return "", fmt.Errorf("ask %s: the answer is no HTTP", to)
	case status == 0 && errors.Is(err, os.ErrDeadlineExceeded):
		return "", fmt.Errorf("ask %s: no answer within %s", to, metadataLimit)
	case status == 0:
		return "", fmt.Errorf("ask %s: %w", to, cmpErr(err, io.ErrUnexpectedEOF))
	case status != 200:
		return "", statusError{to.String(), status}
	}
	_, body, _ := bytes.Cut(got, []byte("\r\n\r\n"))
	if strings.EqualFold(headers["transfer-encoding"], "chunked") {
		_, body, _ = bytes.Cut(body, []byte("\r\n"))
		body, _, _ = bytes.Cut(body, []byte("\r\n0"))
	}
	return strings.TrimSpace(string(body)), nil
}

// whole tells an answer that has come to the length it names.
func whole(b []byte) bool {
	head, body, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok {
		return false
	}
	_, headers := parseHTTP(head)
	n, err := strconv.Atoi(headers["content-length"])
	return err == nil && len(body) >= n
}
