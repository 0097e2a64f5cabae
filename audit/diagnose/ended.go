package diagnose

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
)

// ended gathers what says how the service of the port ended: the unit that
// should hold it, and the kernel's log. Of units nobody is asked while something
// listens.
func (e *Evidence) ended(ctx context.Context, o Options) {
	gap := func(what string, err error) {
		if err != nil {
			e.Gaps = append(e.Gaps, audit.Gap{What: what, Why: err.Error(), Minor: true})
		}
	}
	var err error
	e.Facts.Kernel, err = readKernelLog(ctx)
	if errors.Is(err, fs.ErrPermission) {
		err = errors.New(err.Error() + " (it takes root)")
	}
	gap("the kernel's log", err)
	if e.listens() && o.Files.Unit == "" {
		return
	}
	e.Facts.Earlier, err = readEarlier(o.Files.Root, o.Target.Port)
	gap("earlier reports", err)
	q := unitSearch{root: o.Files.Root, given: o.Files.Unit, port: o.Target.Port, earlier: e.Facts.Earlier}
	if o.Config != nil {
		q.services = o.Config.Services
	}
	e.Facts.Units, err = q.units(ctx)
	gap("systemd", err)
}

// listens tells that a socket of the server's namespace is on the port.
func (e *Evidence) listens() bool {
	if e.Server == nil || len(e.Server.World.Namespaces) == 0 || e.Server.World.Namespaces[0].Listeners == nil {
		return false
	}
	return slices.ContainsFunc(e.Server.World.Namespaces[0].Listeners.Listeners, func(l listeners.Listener) bool {
		return l.Port() == e.Target.Port && (l.Proto == listeners.TCP || l.Proto == listeners.MPTCP)
	})
}
