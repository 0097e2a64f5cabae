package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Loader is a way to give a ruleset to the kernel.
type Loader int

// The loaders, each by the tool that a host would use.
const (
	NFT             Loader = iota // nft -f -
	IPTablesNFT                   // iptables-nft-restore
	IP6TablesNFT                  // ip6tables-nft-restore
	IPTablesLegacy                // iptables-legacy-restore
	IP6TablesLegacy               // ip6tables-legacy-restore
	IPSet                         // ipset restore
	ARPTablesNFT                  // arptables-nft-restore
)

// String returns the name of the tool.
func (l Loader) String() string {
	if argv := l.argv(); argv != nil {
		return argv[0]
	}
	return fmt.Sprintf("loader %d", int(l))
}

// argv returns the command that reads a ruleset from stdin. The restore tools
// wait for the lock, which labs of one process share.
func (l Loader) argv() []string {
	switch l {
	case NFT:
		return []string{"nft", "-f", "-"}
	case IPTablesNFT:
		return []string{"iptables-nft-restore"}
	case IP6TablesNFT:
		return []string{"ip6tables-nft-restore"}
	case IPTablesLegacy:
		return []string{"iptables-legacy-restore", "-w", "30"}
	case IP6TablesLegacy:
		return []string{"ip6tables-legacy-restore", "-w", "30"}
	case ARPTablesNFT:
		return []string{"arptables-nft-restore"}
	case IPSet:
		return []string{"ipset", "restore"}
	}
	return nil
}

// Load gives a ruleset in the tool's own text form to the namespace, beside
// what is loaded already (a restore tool replaces the tables that the text
// names). A text that the tool or the kernel refuses ends the test.
func (n *Namespace) Load(t testing.TB, loader Loader, text string) {
	t.Helper()
	if err := n.TryLoad(t.Context(), loader, text); err != nil {
		t.Fatalf("%v\n%s", err, numbered(text))
	}
}

// TryLoad is Load for a text that may be refused.
func (n *Namespace) TryLoad(ctx context.Context, loader Loader, text string) error {
	argv := loader.argv()
	if argv == nil {
		return fmt.Errorf("no such %v", loader)
	}
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	_, err := n.Exec(ctx, text, argv...)
	return err
}

// numbered returns text with line numbers, as the tools count them.
func numbered(text string) string {
	var b strings.Builder
	i := 0
	for line := range strings.Lines(text) {
		i++
		fmt.Fprintf(&b, "%4d  %s\n", i, strings.TrimRight(line, "\n"))
	}
	return b.String()
}

// Flush removes every rule, set, ipset and connection of the namespace; policies
// are ACCEPT afterwards. Legacy tables that exist stay, empty, since only the
// end of the namespace removes them.
func (n *Namespace) Flush(t testing.TB) {
	t.Helper()
	if err := n.flush(t.Context()); err != nil {
		t.Fatalf("flush: %v", err)
	}
}

func (n *Namespace) flush(ctx context.Context) error {
	for _, legacy := range []struct {
		names  string
		loader Loader
	}{
		{"/proc/thread-self/net/ip_tables_names", IPTablesLegacy},
		{"/proc/thread-self/net/ip6_tables_names", IP6TablesLegacy},
	} {
		names, err := n.ReadFile(legacy.names)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		var text strings.Builder
		for _, table := range strings.Fields(string(names)) {
			fmt.Fprintf(&text, "*%s\n", table)
			for _, chain := range builtin(table) {
				fmt.Fprintf(&text, ":%s ACCEPT\n", chain)
			}
			text.WriteString("COMMIT\n")
		}
		if text.Len() == 0 {
			continue
		}
		if err := n.TryLoad(ctx, legacy.loader, text.String()); err != nil {
			return err
		}
	}
	if found("nft") {
		if err := n.TryLoad(ctx, NFT, "flush ruleset"); err != nil {
			return err
		}
	}
	if found("ipset") {
		if err := n.destroySets(ctx); err != nil {
			return err
		}
	}
	return n.FlushConntrack()
}

// builtin lists the built-in chains of a legacy table: a restore resets the
// policies of those that its text names.
func builtin(table string) []string {
	switch table {
	case "nat":
		return []string{"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"}
	case "mangle":
		return []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}
	case "raw":
		return []string{"PREROUTING", "OUTPUT"}
	}
	return []string{"INPUT", "FORWARD", "OUTPUT"} // filter, security
}

// destroySets removes every ipset. A list:set holds its members, so all are
// emptied first; nf_tables lets go of its sets a moment after the flush.
func (n *Namespace) destroySets(ctx context.Context) error {
	names, err := n.Exec(ctx, "", "ipset", "list", "-n")
	if err != nil || strings.TrimSpace(names) == "" {
		return err
	}
	if _, err := n.Exec(ctx, "", "ipset", "flush"); err != nil {
		return err
	}
	for wait := time.Millisecond; ; wait *= 2 {
		_, err := n.Exec(ctx, "", "ipset", "destroy")
		if err == nil || wait > time.Second {
			return err
		}
		time.Sleep(wait)
	}
}

// FlushConntrack forgets every connection and expectation of the namespace.
func (n *Namespace) FlushConntrack() error {
	for _, table := range []netlink.ConntrackTableType{netlink.ConntrackTable, netlink.ConntrackExpectTable} {
		err := n.links.ConntrackTableFlush(table)
		// Without the module there is nothing to forget.
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("flush connections of %s: %w", n.Name, err)
		}
	}
	return nil
}

// found reports whether a program is installed.
func found(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}
