package xtables

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/hostaudit/hostaudit/firewall"
)

// Options of getsockopt (IPT_SO_GET_*, the same for IPv6) and the sizes of
// their structs.
const (
	optGetInfo    = 64
	optGetEntries = 65

	infoSize      = 84 // struct ipt_getinfo
	getEntrySize  = 40 // struct ipt_get_entries without entries
	tableNameSize = 32 // XT_TABLE_MAXNAMELEN

	maxNames   = 64 << 10
	maxEntries = 1 << 30
)

// Kernel is the Source of the network namespace of the thread that opened it.
type Kernel struct {
	v4, v6     int // sockets, -1 where the family does not exist
	names      map[firewall.TableFamily][]byte
	namesErr   map[firewall.TableFamily]error
	err4, err6 error
}

// Open opens a socket of each family and reads the lists of tables, on the
// calling thread. It fails only where neither can be had for a reason that is
// not absence.
func Open() (*Kernel, error) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		return nil, &Error{"open", "x_tables", fmt.Errorf("a 32-bit build on %s: %w", runtime.GOARCH, errors.ErrUnsupported)}
	}
	k := &Kernel{v4: -1, v6: -1, names: map[firewall.TableFamily][]byte{}, namesErr: map[firewall.TableFamily]error{}}
	// Any socket of the family takes the options; a datagram socket needs no
	// capability by itself.
	open := func(domain int) (int, error) {
		return syscall.Socket(domain, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	}
	var err error
	if k.v4, err = open(syscall.AF_INET); err != nil {
		k.v4, k.err4 = -1, err
	}
	if k.v6, err = open(syscall.AF_INET6); err != nil {
		k.v6, k.err6 = -1, err
	}
	for fam, path := range map[firewall.TableFamily]string{
		firewall.TableIP:  "/proc/thread-self/net/ip_tables_names",
		firewall.TableIP6: "/proc/thread-self/net/ip6_tables_names",
	} {
		b, err := readNames(path)
		k.names[fam], k.namesErr[fam] = b, err
	}
	return k, nil
}

func readNames(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, ErrNotPresent
		}
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxNames))
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Close closes the sockets.
func (k *Kernel) Close() error {
	var err error
	for _, fd := range []*int{&k.v4, &k.v6} {
		if *fd >= 0 {
			err = errors.Join(err, syscall.Close(*fd))
			*fd = -1
		}
	}
	return err
}

// Names implements Source. The list is that of the time of Open.
func (k *Kernel) Names(_ context.Context, fam firewall.TableFamily) ([]byte, error) {
	if err := k.namesErr[fam]; err != nil {
		return nil, permission(&Error{"list", "tables of " + string(fam), err})
	}
	return k.names[fam], nil
}

// Info implements Source.
func (k *Kernel) Info(ctx context.Context, fam firewall.TableFamily, table string) ([]byte, error) {
	b := make([]byte, infoSize)
	copy(b[:tableNameSize-1], table)
	if err := k.get(ctx, fam, optGetInfo, b); err != nil {
		return nil, permission(&Error{"read", object(fam, table), err})
	}
	return b, nil
}

// Entries implements Source.
func (k *Kernel) Entries(ctx context.Context, fam firewall.TableFamily, table string, size int) ([]byte, error) {
	if size < 0 || size > maxEntries {
		return nil, &Error{"read", object(fam, table), fmt.Errorf("%d bytes of entries", size)}
	}
	b := make([]byte, getEntrySize+size)
	copy(b[:tableNameSize-1], table)
	*(*uint32)(unsafe.Pointer(&b[tableNameSize])) = uint32(size)
	err := k.get(ctx, fam, optGetEntries, b)
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINVAL) {
		// get_entries: the size is no longer that of the table (EAGAIN since
		// 2.6.26, EINVAL before).
		return nil, fmt.Errorf("%w: %w", ErrChanged, &Error{"read", object(fam, table), err})
	}
	if err != nil {
		return nil, permission(&Error{"read", object(fam, table), err})
	}
	return b[getEntrySize:], nil
}

// get is getsockopt with the whole of b as value.
func (k *Kernel) get(ctx context.Context, fam firewall.TableFamily, opt int, b []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	fd, level, ferr := k.v4, syscall.IPPROTO_IP, k.err4
	if fam == firewall.TableIP6 {
		fd, level, ferr = k.v6, syscall.IPPROTO_IPV6, k.err6
	}
	if fd < 0 {
		if ferr != nil {
			return ferr
		}
		return os.ErrClosed
	}
	n := uint32(len(b))
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt),
			uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return errno
		}
		if int(n) != len(b) {
			return fmt.Errorf("%d of %d bytes came back", n, len(b))
		}
		return nil
	}
}

// permission says which capability is missing.
func permission(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w (reading iptables-legacy needs CAP_NET_ADMIN)", err)
	}
	return err
}
