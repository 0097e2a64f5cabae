package diagnose

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of a configuration file.
const maxFile = 1 << 20

// readSmall reads a file below a root; links are resolved inside it.
func readSmall(root, name string) ([]byte, error) { return readWithin(root, name, maxFile) }

// openRoot opens a root, "" for the host's own.
func openRoot(root string) (*os.Root, error) { return os.OpenRoot(orWord(root, "/")) }

func readWithin(root, name string, limit int64) ([]byte, error) {
	r, err := openRoot(root)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f, err := openWithin(r, name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join("/", root, name), errors.Unwrap(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join("/", root, name), err)
	}
	return b, nil
}

// openWithin opens a plain file; absolute links (etc/resolv.conf often is one) are
// taken from the root. Other users own some of these places, and a pipe would be
// waited for, a device do something: both are looked at and not opened.
func openWithin(r *os.Root, name string) (*os.File, error) {
	for range 8 {
		target, err := r.Readlink(name)
		if err != nil {
			break
		}
		if filepath.IsAbs(target) {
			name = strings.TrimPrefix(filepath.Clean(target), "/")
			continue
		}
		name = filepath.Join(filepath.Dir(name), target)
		if strings.HasPrefix(name, "..") {
			name = strings.TrimLeft(name, "./")
		}
	}
	st, err := r.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errNotPlain}
	}
	return r.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

var errNotPlain = errors.New("is no plain file")
