package diagnose

import (
	"net/netip"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
)

// Evidence is everything an answer is made from. Parts that were not gathered
// are zero, and causes that need them are "cannot-tell".
type Evidence struct {
	Target Target
	Side   Side
	// From is the client's address as the server sees it, invalid for not known;
	// Iif is the server's interface its packets come in by, "" for not known.
	From netip.Addr
	Iif  string
	// Symptom is the client's own message.
	Symptom *Symptom
	// Names is the look-up of the target's name, nil for an address.
	Names *Resolution
	// Attempts are connections tried from here; on the server they prove nothing
	// about clients and are left out.
	Attempts []Attempt
	// Proxy is the connection to the proxy that the client's settings name.
	Proxy *Attempt
	// ProxySetting is that setting.
	ProxySetting *ProxySetting
	// Meant is the configured service that a client probably means, nil for none.
	Meant *Meant
	// Strangers are connections from the server to dialled addresses that are not
	// its own.
	Strangers []Attempt
	// Probing allows the probe; Probed are what it was answered, none where nothing
	// could be asked.
	Probing bool
	Probed  []*Probed
	// Fronts are the web servers behind the target's port, on the server.
	Fronts []Front
	// Running are the connections that this host has to the target as client, or
	// that the client has to it.
	Running []listeners.Connection
	// Sizes are the packets that get through between this host and the other.
	Sizes *Sizes
	// Here is this host, Server the server: the same at SideServer and SideBoth,
	// the snapshot that was given or nil at SideClient.
	Here, Server *audit.Snapshot
	Facts        *HostFacts // of this host; nil for not read
	Config       *audit.Config
	// Public are addresses by which clients reach the server besides its own:
	// behind 1:1 NAT the host does not know them.
	Public []netip.Addr
	// Source is the address the client's program binds before it connects.
	Source netip.Addr
	Now    time.Time
	Gaps   []audit.Gap

	asked netip.AddrPort // by the probe
}

// serverFacts are the HostFacts where this host is the server.
func (e *Evidence) serverFacts() *HostFacts {
	if e.Side == SideClient || e.Facts == nil {
		return &HostFacts{}
	}
	return e.Facts
}

// clientFacts are the HostFacts where this host is the client.
func (e *Evidence) clientFacts() *HostFacts {
	if e.Side == SideServer || e.Facts == nil {
		return &HostFacts{}
	}
	return e.Facts
}
