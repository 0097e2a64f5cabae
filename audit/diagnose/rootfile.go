package diagnose

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of a configuration file.
const maxFile = 1 << 20

// readSmall reads a file below a root; links are resolved inside it.
func readSmall(root, name string) ([]byte, error) { return readWithin(root, name, maxFile) }

func readWithin(root, name string, limit int64) ([]byte, error) {
	if root == "" {
		root = "/"
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f, err := openWithin(r, name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(root, name), errors.Unwrap(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(root, name), err)
	}
	return b, nil
}

// openWithin opens a file; absolute links (etc/resolv.conf often is one) are
// taken from the root.
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
	return r.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
}
