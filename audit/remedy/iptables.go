package remedy

import (
	"errors"
	"fmt"

	"github.com/coreos/go-iptables/iptables"

	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/owner"
)

// errNotIPTables: the rule is none of iptables.
var errNotIPTables = errors.New("no rule of iptables")

// changeTables puts a rule in, or takes it out, through go-iptables with the binary at
// path: that of the rule's back end and family. It waits for the binary as long as that
// takes and keeps all that it writes; RunErrand bounds both. An *iptables.Error is the
// binary's own refusal.
func changeTables(i *owner.Insertion, path string, in bool) error {
	if i.Backend == firewall.NFTables {
		return errNotIPTables
	}
	if err := i.Check(); err != nil {
		return err
	}
	protocol := iptables.ProtocolIPv4
	if i.Family == firewall.TableIP6 {
		protocol = iptables.ProtocolIPv6
	}
	t, err := iptables.New(iptables.Path(path), iptables.IPFamily(protocol), iptables.Timeout(owner.LockWait))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	spec := i.Spec()[1:]
	if in {
		return t.Insert(i.Table, i.Chain, i.Number, spec...)
	}
	return t.Delete(i.Table, i.Chain, spec...)
}
