package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// emit writes a report to stdout, or to a file whole or not at all.
func (a *app) emit(file string, mode uint32, render func(io.Writer) error) error {
	var b pages
	if err := render(&b); err != nil {
		return err
	}
	if file != "" {
		return usage(writeWhole(file, mode, b.whole()))
	}
	if _, err := b.WriteTo(a.stdout); err != nil && !errors.Is(err, unix.EPIPE) {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// writeWhole puts a file in place in one step: a new file beside it, synced,
// renamed over it. The directory is opened once, so that nobody can exchange it
// in between; nothing is ever written through a link, and what is there is
// replaced only where it is a plain file.
func writeWhole(name string, mode uint32, data []byte) (err error) {
	dir, base := filepath.Split(filepath.Clean(name))
	if dir == "" {
		dir = "."
	}
	fail := func(err error) error { return fmt.Errorf("write %s: %w", name, err) }
	d, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(d)
	var st unix.Stat_t
	switch err := unix.Fstatat(d, base, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case errors.Is(err, unix.ENOENT):
	case err != nil:
		return fail(err)
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return fail(errors.New("it is a symbolic link"))
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fail(errors.New("it is not a plain file"))
	default:
		mode = st.Mode & 0o777 // as it was
	}
	temp := "." + base + "." + rand.Text()[:8]
	f, err := unix.Openat(d, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fail(err)
	}
	open := true
	defer func() {
		if open {
			unix.Close(f)
		}
		if err != nil {
			_ = unix.Unlinkat(d, temp, 0)
		}
	}()
	for rest := data; len(rest) > 0; {
		n, err := unix.Write(f, rest)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fail(err)
		}
		rest = rest[n:]
	}
	if err := unix.Fchmod(f, mode); err != nil {
		return fail(err)
	}
	if err := unix.Fsync(f); err != nil {
		return fail(err)
	}
	open = false
	if err := unix.Close(f); err != nil {
		return fail(err)
	}
	if err := unix.Renameat(d, temp, d, base); err != nil {
		return fail(err)
	}
	// The name is safe on disk only with its directory.
	if err := unix.Fsync(d); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("write %s: sync its directory: %w", name, err)
	}
	return nil
}
