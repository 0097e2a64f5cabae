package collect

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
)

// readMeta says what host this is. Files of the host come from beneath root,
// what the kernel says from the kernel.
func readMeta(root, tool string) (audit.Meta, []audit.Gap) {
	m := audit.Meta{TakenAt: time.Now().UTC(), Tool: tool, UID: os.Geteuid(), Root: root}
	var gaps []audit.Gap
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		m.Host, m.Kernel, m.Machine = text(u.Nodename[:]), text(u.Release[:]), text(u.Machine[:])
	} else {
		gaps = append(gaps, audit.Gap{What: "name and kernel of the host", Why: err.Error()})
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err == nil {
		m.Uptime = time.Duration(ts.Nano())
	}
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		m.BootID = strings.TrimSpace(string(b))
	}
	name, err := readOS(root)
	if err != nil {
		gaps = append(gaps, audit.Gap{What: "name of the operating system", Why: self().explain(err, needFiles), Minor: true})
	}
	m.OS = name
	return m, gaps
}

// readMemory gives MemTotal of /proc/meminfo in bytes.
func readMemory() (uint64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if f := strings.Fields(string(line)); len(f) == 3 && f[0] == "MemTotal:" && f[2] == "kB" {
			n, err := strconv.ParseUint(f[1], 10, 53)
			if err != nil {
				return 0, fmt.Errorf("read /proc/meminfo: %w", err)
			}
			return n << 10, nil
		}
	}
	return 0, errors.New("read /proc/meminfo: no MemTotal")
}

// readOS gives PRETTY_NAME of os-release(5).
func readOS(root string) (string, error) {
	var errs []error
	for _, p := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		b, err := readBeneath(root, p, 64<<10)
		if err == nil {
			return prettyName(b), nil
		}
		errs = append(errs, fmt.Errorf("read %s: %w", p, err))
		if !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	return "", errs[len(errs)-1]
}

// prettyName takes PRETTY_NAME out of a file of shell assignments.
func prettyName(b []byte) string {
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		v, ok := strings.CutPrefix(strings.TrimSpace(sc.Text()), "PRETTY_NAME=")
		if !ok {
			continue
		}
		if s, err := strconv.Unquote(v); err == nil {
			return s
		}
		return strings.Trim(v, `'"`)
	}
	return ""
}

// readBeneath reads a regular file of the host. Links are resolved inside root
// and never leave it (openat2(2), RESOLVE_IN_ROOT), and nothing is waited for.
func readBeneath(root, name string, limit int64) ([]byte, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root %s: %w", root, err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	var f *os.File
	switch {
	case err == nil:
		f = os.NewFile(uintptr(fd), name)
	case errors.Is(err, unix.ENOSYS): // before Linux 5.6: links that leave root are refused
		r, rootErr := os.OpenRoot(root)
		if rootErr != nil {
			return nil, rootErr
		}
		defer r.Close()
		if f, err = r.OpenFile(strings.TrimPrefix(name, "/"), os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
			return nil, err
		}
	default:
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("longer than %d bytes", limit)
	}
	return b, err
}
