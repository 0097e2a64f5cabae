package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/listeners"
	"github.com/hostaudit/hostaudit/listeners/sockdiag"
)

func measureBig(st *stage) error {
	if err := loadLegacy(openLoopback(legacyRules(st.scaled(50_000) - 1))); err != nil {
		return err
	}
	sockets := st.scaled(1_060_000)
	if err := st.sees(st.scaled(1000), st.scaled(50_000), sockets*98/100); err != nil {
		return err
	}
	if err := st.sockets(); err != nil {
		return err
	}
	// One pipeline stands for two gates; ss -tan is added to it for the second.
	c, err := st.turns(program(st.scan("--no-census")), program(st.scan()), program(pipeline...), program([]string{"ss", "-tan"}),
		program([]string{st.Hostaudit, "ports"}), program([]string{"ss", "-Htan"}))
	if err != nil {
		return err
	}
	st.results = append(st.results, result{Gate: "scan-legacy", Ours: c[0], Theirs: c[2]},
		result{Gate: "scan-census", Ours: c[1], Theirs: c[2].plus(c[3])}, result{Gate: "ports", Ours: c[4], Theirs: c[5]})

	if err := flush(); err != nil {
		return err
	}
	if err := loadNFT(openLoopback(nftRules(st.scaled(50_000)-1, ""))); err != nil {
		return err
	}
	if err := st.sees(st.scaled(1000), st.scaled(50_000), 0); err != nil {
		return err
	}
	return st.compare("scan-nft", program(st.scan("--no-census")), program(pipeline...))
}

// sockets measures the readers of this process.
func (st *stage) sockets() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx := context.Background()
	want := st.scaled(1000)
	quiet, err := newQuiet(want)
	if err != nil {
		return err
	}
	defer close(quiet)
	busy := func() error { return readListeners(ctx, want) }
	listing := inside(busy)
	if err := st.against(listing, map[string]side{
		"listeners-ss": program([]string{"ss", "-Htln"}), "listeners-netstat": program([]string{"netstat", "-tln"}),
		"listeners-lsof": program([]string{"lsof", "-nP", "-iTCP", "-sTCP:LISTEN"}),
	}); err != nil {
		return err
	}
	err = st.compare("listeners-quiet", listing, inside(func() error {
		done := make(chan error)
		quiet <- func() { done <- readListeners(ctx, want) }
		return <-done
	}))
	if err != nil {
		return err
	}

	live, err := listeners.OpenLive("")
	if err != nil {
		return err
	}
	defer live.Close()
	table, err := listeners.Read(ctx, live)
	if err != nil {
		return err
	}
	ports, err := listeners.ReadPortSettings(ctx, "")
	if err != nil {
		return err
	}
	least := uint64(st.scaled(1_060_000) * 98 / 100)
	return st.compare("dump", inside(func() error {
		c, err := listeners.ReadCensus(ctx, live, listeners.CensusOptions{Settings: ports, Table: table})
		if err == nil && (c.Sockets < least || len(c.Gaps) > 0) {
			err = fmt.Errorf("the census counted %d sockets, %d were made; gaps %v", c.Sockets, least, c.Gaps)
		}
		return err
	}), inside(func() error {
		return live.Dump(ctx, sockdiag.Query{Family: sockdiag.AnyFamily, Protocol: sockdiag.TCP, States: sockdiag.AllTCP}, func([]byte) error { return nil })
	}))
}

// readListeners reads the calling thread's namespace as a scan does.
func readListeners(ctx context.Context, want int) error {
	live, err := listeners.OpenLive("")
	if err != nil {
		return err
	}
	defer live.Close()
	table, err := listeners.Read(ctx, live)
	if err == nil && len(table.Listeners) < want {
		err = fmt.Errorf("%d listeners read, %d were made", len(table.Listeners), want)
	}
	return err
}

// newQuiet makes a thread in a network namespace with so many listeners and
// nothing else, which runs what it is sent.
func newQuiet(n int) (chan<- func(), error) {
	work, ready := make(chan func()), make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ready <- fmt.Errorf("make a quiet namespace: %w", err)
			return
		}
		var fds []int
		defer func() {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}()
		for i := range n {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				fds = append(fds, fd)
				err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Port: firstListener + i}), unix.Listen(fd, 128))
			}
			if err != nil {
				ready <- fmt.Errorf("listener %d in a quiet namespace: %w", i, err)
				return
			}
		}
		ready <- nil
		for f := range work {
			f()
		}
	}()
	return work, <-ready
}

func measureOwners(st *stage) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx := context.Background()
	live, err := listeners.OpenLive("")
	if err != nil {
		return err
	}
	defer live.Close()
	table, err := listeners.Read(ctx, live)
	if err != nil {
		return err
	}
	by := func(method string) side {
		return inside(func() error {
			o, err := listeners.ReadOwners(ctx, table.Inodes(), listeners.OwnerOptions{Method: method})
			if err != nil {
				return err
			}
			if o.Method != method || len(o.Holders) < st.scaled(1000) {
				return fmt.Errorf("by %s, owners of %d sockets; %d were made", o.Method, len(o.Holders), st.scaled(1000))
			}
			return nil
		})
	}
	theirs := program([]string{"ss", "-tlnp"})
	return errors.Join(st.compare("owners-proc", by("proc"), theirs), st.against(by("bpf"), map[string]side{
		"owners-bpf": theirs, "owners-netstat": program([]string{"netstat", "-tlnp"}),
		"owners-lsof": program([]string{"lsof", "-nP", "-iTCP", "-sTCP:LISTEN"}),
	}))
}
