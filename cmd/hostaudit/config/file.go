package config

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

// maxFile bounds a configuration file.
const maxFile = 1 << 20

// readFile reads a configuration file whole. What it is and who may write it is
// asked of the opened file, not of its name.
func readFile(name string, euid int) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "read configuration", Path: name, Err: err}
	}
	return readOpened(os.NewFile(uintptr(fd), name), name, euid)
}

// readBeneath reads a file as a process whose root is dir would: links are
// resolved inside dir and never leave it (openat2, RESOLVE_IN_ROOT, Linux 5.6).
func readBeneath(dir, name string, euid int) ([]byte, error) {
	if filepath.Clean(dir) == "/" {
		return readFile(name, euid)
	}
	shown := filepath.Join(dir, name)
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root %s: %w", dir, notMissing(err))
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, strings.TrimPrefix(name, "/"), &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // an old kernel, or a sandbox that does not know the call
		r, err := os.OpenRoot(dir) // refuses every link that leads out
		if err != nil {
			return nil, fmt.Errorf("open root %s: %w", dir, err)
		}
		defer r.Close()
		f, err := r.OpenFile(strings.TrimPrefix(name, "/"), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if err != nil {
			return nil, fmt.Errorf("read configuration %s: %w", shown, err)
		}
		return readOpened(f, shown, euid)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read configuration", Path: shown, Err: err}
	}
	return readOpened(os.NewFile(uintptr(fd), shown), shown, euid)
}

// notMissing keeps "there is no such root" from reading as "there is no
// configuration".
func notMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("no such directory")
	}
	return err
}

func readOpened(f *os.File, name string, euid int) ([]byte, error) {
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", name, err)
	}
	refuse := func(why string) error { return &Error{Source: name, Why: why} }
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, refuse("not a regular file")
	case euid == 0 && st.Uid != 0:
		return nil, refuse(fmt.Sprintf("belongs to user %d: as root only a file that belongs to root is read", st.Uid))
	case euid == 0 && st.Mode&0o022 != 0:
		return nil, refuse(fmt.Sprintf("can be written by others (mode %04o): as root only a file that root alone can write is read; chmod go-w", st.Mode&0o7777))
	case st.Size > maxFile:
		return nil, refuse(fmt.Sprintf("larger than %d bytes", maxFile))
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", name, err)
	}
	if len(data) > maxFile {
		return nil, refuse(fmt.Sprintf("larger than %d bytes", maxFile))
	}
	return data, nil
}
