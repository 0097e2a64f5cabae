package collect

import (
	"encoding/binary"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/route"
	"github.com/hostaudit/hostaudit/listeners"
	"github.com/hostaudit/hostaudit/sysctl"
)

// Schema names the form of a saved capture.
const Schema = "hostaudit/snapshot/v1"

// Capture is everything a snapshot is made of as it was read: the bytes that
// the kernel gave, and plain values where it gives no bytes or too many. It is
// made by [Record], written by [Save] and read by [Load].
type Capture struct {
	Schema    string    `json:"schema"`
	BigEndian bool      `json:"big_endian,omitempty"` // byte order of the machine
	Meta      metaJSON  `json:"meta"`
	Reader    reader    `json:"reader"`
	Options   replayed  `json:"options"`
	Taken     []reading `json:"namespaces"` // the audited one first
	// Others are the inodes of the network namespaces that links were looked for
	// in, in that order.
	Others    []uint64             `json:"others,omitempty"`
	Host      []answer             `json:"host,omitempty"` // questions about the machine
	Owners    *listeners.Owners    `json:"owners,omitempty"`
	Sysctls   sysctl.Values        `json:"sysctls,omitempty"`
	Files     *sysctl.Tree         `json:"files,omitempty"`
	Keys      []sysctl.Key         `json:"keys,omitempty"` // settings that exist
	SockStat  *listeners.SockStat  `json:"sockstat,omitempty"`
	Conntrack *listeners.Conntrack `json:"conntrack,omitempty"`
	Memory    uint64               `json:"memory,omitempty"` // MemTotal, bytes
	Samples   []audit.Sample       `json:"samples,omitempty"`
	Census    *listeners.Census    `json:"census,omitempty"`
	// Gaps are those that do not follow from decoding.
	Gaps    []gapJSON      `json:"gaps,omitempty"`
	Timings []audit.Timing `json:"timings,omitempty"`
}

// replayed are the options that a replay needs to ask the same questions.
type replayed struct {
	Ask []string `json:"ask,omitempty"`
}

// reading is one network namespace as it was read.
type reading struct {
	ID   uint64             `json:"id"`
	Name listeners.HostText `json:"name"`
	// Failed says of a part why it could not be read at all.
	Failed map[string]string `json:"failed,omitempty"`
	// Apart: no link leads there, and nothing but its listeners was read.
	Apart     bool            `json:"apart,omitempty"`
	Listeners *listeners.Tape `json:"listeners,omitempty"`
	// Later are the listeners once more, to tell sockets that nobody holds from
	// those that were closed meanwhile.
	Later    *listeners.Tape `json:"later,omitempty"`
	Routes   *route.Capture  `json:"routes,omitempty"`
	Firewall *rawFirewall    `json:"firewall,omitempty"`
	Answers  []answer        `json:"answers,omitempty"`
}

// The parts of a namespace, as reach.Namespace.Unread names them.
const (
	partListeners = "listeners"
	partRoutes    = "routes"
	partFirewall  = "firewall"
	partPrograms  = "programs"
)

// metaJSON is audit.Meta with the host's own text kept byte for byte.
type metaJSON struct {
	Host      listeners.HostText `json:"host"`
	OS        listeners.HostText `json:"os"`
	Kernel    string             `json:"kernel"`
	Machine   string             `json:"machine"`
	BootID    string             `json:"boot_id"`
	Uptime    time.Duration      `json:"uptime"`
	TakenAt   time.Time          `json:"taken_at"`
	Tool      string             `json:"tool"`
	UID       int                `json:"uid"`
	FirstNS   bool               `json:"first_ns"`
	NSUnknown bool               `json:"ns_unknown"`
	Root      string             `json:"root"`
}

func metaToJSON(m audit.Meta) metaJSON {
	return metaJSON{listeners.HostText(m.Host), listeners.HostText(m.OS), m.Kernel, m.Machine, m.BootID, m.Uptime, m.TakenAt, m.Tool, m.UID, m.FirstNS, m.NSUnknown, m.Root}
}

func (m metaJSON) meta() audit.Meta {
	return audit.Meta{Host: string(m.Host), OS: string(m.OS), Kernel: m.Kernel, Machine: m.Machine, BootID: m.BootID, Uptime: m.Uptime,
		TakenAt: m.TakenAt, Tool: m.Tool, UID: m.UID, FirstNS: m.FirstNS, NSUnknown: m.NSUnknown, Root: m.Root}
}

// gapJSON is audit.Gap with all its fields.
type gapJSON struct {
	What  string `json:"what"`
	Why   string `json:"why"`
	Minor bool   `json:"minor,omitempty"`
}

func gapsToJSON(gaps []audit.Gap) []gapJSON {
	var out []gapJSON
	for _, g := range gaps {
		out = append(out, gapJSON(g))
	}
	return out
}

func (c *Capture) order() binary.ByteOrder {
	if c.BigEndian {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

func bigEndian() bool { return binary.NativeEndian.Uint16([]byte{0, 1}) == 1 }
