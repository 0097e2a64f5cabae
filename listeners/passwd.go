package listeners

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

const maxPasswd = 8 << 20

// readPasswd gives user names by uid from /etc/passwd beneath root; links are
// resolved inside root. Users known only to a directory service have no name
// here. A host without the file has no names, which is no error.
func readPasswd(root string) (map[uint32]string, error) {
	if root == "" {
		root = "/"
	}
	b, err := readBeneath(root, "etc/passwd", maxPasswd)
	if errors.Is(err, fs.ErrNotExist) {
		return map[uint32]string{}, nil
	}
	if err != nil {
		return map[uint32]string{}, err
	}
	return parsePasswd(b), nil
}

// parsePasswd reads man 5 passwd; of several names for a uid the first counts,
// as for getpwuid. Lines that are none are skipped, as there.
func parsePasswd(b []byte) map[uint32]string {
	names := map[uint32]string{}
	for line := range bytes.Lines(b) {
		f := bytes.SplitN(line, []byte(":"), 4)
		if len(f) < 4 || len(f[0]) == 0 {
			continue
		}
		uid, err := parseUint32(f[2], 10)
		if err != nil {
			continue
		}
		if _, known := names[uid]; !known {
			names[uid] = string(f[0])
		}
	}
	return names
}

// readBeneath reads a file below root without ever leaving it (openat2 with
// RESOLVE_IN_ROOT).
func readBeneath(root, name string, limit int) ([]byte, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", root, err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, fmt.Errorf("open %s in %s: %w", name, root, err)
	}
	defer unix.Close(fd)
	var out []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s in %s: %w", name, root, err)
		}
		if n == 0 {
			return out, nil
		}
		if out = append(out, buf[:n]...); len(out) > limit {
			return nil, fmt.Errorf("read %s in %s: longer than %d bytes", name, root, limit)
		}
	}
}
