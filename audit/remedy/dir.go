package remedy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxFile bounds every file that is read or rewritten.
const maxFile = 4 << 20

// tempSuffix ends the names of unfinished files. Nothing that loads directories
// of drop-ins takes a name with a leading dot or this ending.
const tempSuffix = ".hostaudit-tmp"

// dir is an open directory, so that nobody can exchange it between two steps.
type dir struct {
	fd   int
	name string // for messages
}

// openDir opens a directory beneath root. No component may be a link: the path
// means what it says. With create missing components are made, with mode. With
// own every component must belong to this user and be writable for nobody else.
// A missing directory is fs.ErrNotExist.
func openDir(root, name string, create bool, mode uint32, own bool) (_ *dir, err error) {
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: root, Err: err}
	}
	shown := strings.TrimSuffix(root, "/")
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	for part := range strings.SplitSeq(strings.Trim(path.Clean("/"+name), "/"), "/") {
		if part == "" {
			continue
		}
		shown += "/" + part
		next, err := unix.Openat(fd, part, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) && create {
			if err := unix.Mkdirat(fd, part, mode); err != nil && !errors.Is(err, unix.EEXIST) {
				return nil, &fs.PathError{Op: "make directory", Path: shown, Err: err}
			}
			if err := unix.Fsync(fd); err != nil {
				return nil, &fs.PathError{Op: "sync the directory of", Path: shown, Err: err}
			}
			next, err = unix.Openat(fd, part, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err == nil {
				// Whatever the umask was.
				err = unix.Fchmod(next, mode)
			}
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open directory", Path: shown, Err: err}
		}
		unix.Close(fd)
		fd = next
		if own {
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err != nil {
				return nil, &fs.PathError{Op: "stat", Path: shown, Err: err}
			}
			if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
				return nil, fmt.Errorf("%s: belongs to uid %d with mode %o; it must be this user's and writable for nobody else", shown, st.Uid, st.Mode&0o7777)
			}
		}
	}
	return &dir{fd, shown}, nil
}

func (d *dir) close() { unix.Close(d.fd) }

// file is a plain file as it is on disk.
type file struct {
	data []byte
	stat unix.Stat_t
}

// read reads a plain file whole. A fifo, a device or a link is an error, and
// never waited for or followed. A missing file is fs.ErrNotExist.
func (d *dir) read(name string) (*file, error) {
	fail := func(err error) error { return &fs.PathError{Op: "read", Path: d.name + "/" + name, Err: err} }
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fail(err)
	}
	defer unix.Close(fd)
	f := &file{}
	if err := unix.Fstat(fd, &f.stat); err != nil {
		return nil, fail(err)
	}
	switch {
	case f.stat.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fail(errors.New("not a plain file"))
	case f.stat.Size > maxFile:
		return nil, fail(errors.New("larger than 4 MiB"))
	}
	buf := make([]byte, min(f.stat.Size, maxFile)+1)
	for {
		n, err := unix.Read(fd, buf[len(f.data):])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fail(err)
		}
		if n == 0 {
			return f, nil
		}
		f.data = buf[:len(f.data)+n]
		if len(f.data) > maxFile {
			return nil, fail(errors.New("larger than 4 MiB"))
		}
		if len(f.data) == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

// write puts a file in place in one step and durably: a new file beside it,
// synced, renamed over it, the directory synced. like is the file that is
// replaced, whose owner, mode and security label it keeps; nil for a new one,
// which gets mode. A temporary file of an interrupted run is replaced.
func (d *dir) write(name string, data []byte, mode uint32, like *unix.Stat_t) (err error) {
	fail := func(err error) error { return &fs.PathError{Op: "write", Path: d.name + "/" + name, Err: err} }
	temp := "." + name + tempSuffix
	if err := d.unlink(temp); err != nil {
		return err
	}
	fd, err := unix.Openat(d.fd, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fail(err)
	}
	open := true
	defer func() {
		if open {
			unix.Close(fd)
		}
		if err != nil {
			_ = unix.Unlinkat(d.fd, temp, 0)
		}
	}()
	for rest := data; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fail(err)
		}
		rest = rest[n:]
	}
	if like != nil {
		mode = like.Mode & 0o7777
		if err := unix.Fchown(fd, int(like.Uid), int(like.Gid)); err != nil {
			return fail(err)
		}
		if err := d.copyLabel(fd, name); err != nil {
			return fail(err)
		}
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return fail(err)
	}
	if err := unix.Fsync(fd); err != nil {
		return fail(err)
	}
	open = false
	if err := unix.Close(fd); err != nil {
		return fail(err)
	}
	if err := unix.Renameat(d.fd, temp, d.fd, name); err != nil {
		return fail(err)
	}
	return d.sync()
}

// copyLabel gives the new file the SELinux label of the one it replaces.
func (d *dir) copyLabel(fd int, name string) error {
	old, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(old)
	label := make([]byte, 4096)
	n, err := unix.Fgetxattr(old, "security.selinux", label)
	if err != nil {
		return nil // has none, or the file system has none
	}
	if err := unix.Fsetxattr(fd, "security.selinux", label[:n], 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

// remove takes a file away, durably; that it is gone already is no error.
func (d *dir) remove(name string) error {
	if err := d.unlink(name); err != nil {
		return err
	}
	return d.sync()
}

func (d *dir) unlink(name string) error {
	if err := unix.Unlinkat(d.fd, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		// A read-only file system says so even where there is nothing to remove.
		var st unix.Stat_t
		if errors.Is(unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW), unix.ENOENT) {
			return nil
		}
		return &fs.PathError{Op: "remove", Path: d.name + "/" + name, Err: err}
	}
	return nil
}

func (d *dir) sync() error {
	if err := unix.Fsync(d.fd); err != nil {
		return &fs.PathError{Op: "sync", Path: d.name, Err: err}
	}
	return nil
}
