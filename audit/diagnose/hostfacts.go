package diagnose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hostaudit/hostaudit/audit"
)

// HostFacts are things about this host that a snapshot does not hold.
type HostFacts struct {
	Panel *Panel
	// Cloud is told by the firmware's names (DMI), without network.
	Cloud *Cloud
	// Proxies are proxy settings of the process in question (PID), else of this
	// one and of the whole system.
	Proxies []ProxySetting
	// Preload is an LD_PRELOAD of the process that sends connections elsewhere.
	Preload string
	PID     int
	// Unit is the unit asked about as its files show it, nil for none; Units are
	// those that should hold the port, the surest first, with what systemd says.
	Unit  *Unit
	Units []*Unit
	// Earlier is who held the port when scan kept a report, nil for not known.
	Earlier *Earlier
	// Kernel is the kernel's log, nil for not read.
	Kernel *KernelLog
	// Log is what the given log file says.
	Log  []LogHit
	Gaps []audit.Gap
}

// Cloud is the provider whose machine this is.
type Cloud struct {
	Name, Source string
	Console      string // where its security groups are
	Metadata     string // names its metadata service, "" for none of use
	// Public are addresses that Metadata told, Groups the names of security groups.
	Public []string
	Groups []string
}

// ProxySetting is one proxy variable.
type ProxySetting struct {
	Name, Value, Source string
}

// Unit is the state of a systemd unit as its control group and files show it,
// and as systemd says.
type Unit struct {
	Name string
	// Found says why it is taken for the port's, "" for one asked about; Sure that
	// something names it, and nothing was guessed.
	Found string
	Sure  bool
	// State is what systemd says, nil for not asked.
	State *UnitState
	// File is the unit file found, "" for none; Active: its control group has
	// processes.
	File     string
	Active   bool
	PIDFile  string // of the unit file
	StalePID int    // the pid in PIDFile where no such process runs
}

// HostOptions steer ReadHost.
type HostOptions struct {
	Root    string // "" is /
	PID     int    // the client's process, 0 for none
	Unit    string // "" for none
	Log     string // a log file of the service, "" for none
	Environ []string
}

// ReadHost reads the files behind HostFacts.
func ReadHost(ctx context.Context, o HostOptions) *HostFacts {
	h := &HostFacts{PID: o.PID}
	gap := func(what string, err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			h.Gaps = append(h.Gaps, audit.Gap{What: what, Why: err.Error()})
		}
	}
	h.Panel = readPanel(o.Root)
	dmi := map[string]string{}
	for _, name := range []string{"sys_vendor", "product_name", "chassis_asset_tag", "board_asset_tag", "board_vendor", "bios_vendor"} {
		if b, err := readSmall(o.Root, "sys/class/dmi/id/"+name); err == nil {
			dmi[name] = strings.TrimSpace(string(b))
		}
	}
	h.Cloud = cloudOf(dmi)
	if o.PID > 0 {
		b, err := readSmall("/", fmt.Sprintf("proc/%d/environ", o.PID))
		gap(fmt.Sprintf("environment of process %d", o.PID), err)
		if errors.Is(err, fs.ErrNotExist) {
			h.Gaps = append(h.Gaps, audit.Gap{What: fmt.Sprintf("environment of process %d", o.PID), Why: "no such process"})
		}
		h.environ(strings.Split(string(bytes.TrimRight(b, "\x00")), "\x00"), fmt.Sprintf("environment of process %d", o.PID))
	} else {
		h.environ(o.Environ, "environment of this shell")
		if b, err := readSmall(o.Root, "etc/environment"); err == nil {
			h.environ(assignments(b), "/etc/environment")
		} else {
			gap("/etc/environment", err)
		}
		for _, name := range []string{"etc/systemd/system.conf", "etc/systemd/user.conf"} {
			if b, err := readSmall(o.Root, name); err == nil {
				h.environ(defaultEnvironment(b), "/"+name)
			} else {
				gap("/"+name, err)
			}
		}
	}
	if o.Unit != "" {
		h.Unit = readUnit(o.Root, o.Unit)
	}
	if o.Log != "" {
		hits, err := readLog(ctx, o.Log)
		h.Log = hits
		if err != nil {
			h.Gaps = append(h.Gaps, audit.Gap{What: "log " + o.Log, Why: err.Error()})
		}
	}
	return h
}

func (h *HostFacts) environ(kvs []string, source string) {
	for _, kv := range kvs {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || v == "" {
			continue
		}
		switch strings.ToLower(k) {
		case "http_proxy", "https_proxy", "all_proxy", "no_proxy", "ws_proxy", "wss_proxy", "socks_proxy":
			h.Proxies = append(h.Proxies, ProxySetting{k, v, source})
		case "ld_preload":
			for _, lib := range []string{"proxychains", "tsocks", "torsocks", "graftcp", "redsocks"} {
				if strings.Contains(v, lib) {
					h.Preload = v
				}
			}
		}
	}
}

// assignments reads NAME=value lines, values perhaps in quotes.
func assignments(b []byte) []string {
	var out []string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "export ")
		if k, v, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			out = append(out, k+"="+strings.Trim(v, `"'`))
		}
	}
	return out
}

// defaultEnvironment reads DefaultEnvironment= of systemd's configuration.
func defaultEnvironment(b []byte) []string {
	var out []string
	for line := range strings.Lines(string(b)) {
		v, ok := strings.CutPrefix(strings.TrimSpace(line), "DefaultEnvironment=")
		if !ok {
			continue
		}
		for _, f := range strings.Fields(v) {
			out = append(out, strings.Trim(f, `"'`))
		}
	}
	return out
}

// cloudOf recognises providers by what their firmware calls itself.
func cloudOf(dmi map[string]string) *Cloud {
	has := func(key, text string) bool { return strings.Contains(strings.ToLower(dmi[key]), strings.ToLower(text)) }
	source := func(key string) string { return "/sys/class/dmi/id/" + key + ": " + dmi[key] }
	switch {
	case has("sys_vendor", "Amazon EC2"), strings.HasPrefix(dmi["board_asset_tag"], "i-") && has("sys_vendor", "Amazon"):
		return &Cloud{Name: "AWS", Source: source("sys_vendor"), Console: "EC2 console → Security Groups (and the subnet's network ACL)", Metadata: "aws"}
	case has("sys_vendor", "Alibaba Cloud"):
		return &Cloud{Name: "Alibaba Cloud", Source: source("sys_vendor"), Console: "ECS console → Network & Security → Security Groups", Metadata: "alibaba"}
	case has("product_name", "Google Compute Engine"):
		return &Cloud{Name: "Google Cloud", Source: source("product_name"), Console: "VPC network → Firewall", Metadata: "google"}
	case dmi["chassis_asset_tag"] == "7783-7084-3265-9085-8269-3286-77":
		return &Cloud{Name: "Azure", Source: source("chassis_asset_tag"), Console: "the network security groups of the NIC and of the subnet", Metadata: "azure"}
	case has("sys_vendor", "Tencent Cloud"):
		return &Cloud{Name: "Tencent Cloud", Source: source("sys_vendor"), Console: "CVM console → Security Groups", Metadata: "tencent"}
	case has("sys_vendor", "Huawei Cloud"), has("product_name", "Huawei Cloud"):
		return &Cloud{Name: "Huawei Cloud", Source: source("sys_vendor"), Console: "ECS console → Security Groups", Metadata: "huawei"}
	case has("sys_vendor", "DigitalOcean"):
		return &Cloud{Name: "DigitalOcean", Source: source("sys_vendor"), Console: "Networking → Firewalls", Metadata: "digitalocean"}
	case has("sys_vendor", "Hetzner"):
		return &Cloud{Name: "Hetzner", Source: source("sys_vendor"), Console: "Cloud Console → Firewalls", Metadata: "hetzner"}
	case dmi["chassis_asset_tag"] == "OracleCloud.com":
		return &Cloud{Name: "Oracle Cloud", Source: source("chassis_asset_tag"), Console: "the VCN's security lists and network security groups"}
	}
	return nil
}

var unitName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9:_.@\\-]{1,200}$`) })

// readUnit finds out about a unit from files alone: its own, and its control
// group's, which is there and populated while it runs.
func readUnit(root, name string) *Unit {
	if !strings.Contains(name, ".") {
		name += ".service"
	}
	u := &Unit{Name: name}
	if !unitName().MatchString(name) {
		return u
	}
	for _, dir := range []string{"etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"} {
		if b, err := readSmall(root, path.Join(dir, name)); err == nil {
			u.File = "/" + path.Join(dir, name)
			for line := range strings.Lines(string(b)) {
				if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PIDFile="); ok {
					u.PIDFile = strings.TrimSpace(v)
				}
			}
			break
		}
	}
	for _, base := range []string{"sys/fs/cgroup", "sys/fs/cgroup/systemd", "sys/fs/cgroup/unified"} {
		if b, err := readSmall(root, path.Join(base, "system.slice", name, "cgroup.procs")); err == nil && len(bytes.TrimSpace(b)) > 0 {
			u.Active = true
		}
		if b, err := readSmall(root, path.Join(base, "system.slice", name, "cgroup.events")); err == nil && bytes.Contains(b, []byte("populated 1")) {
			u.Active = true
		}
	}
	files := []string{"run/" + strings.TrimSuffix(name, ".service") + ".pid", "var/run/" + strings.TrimSuffix(name, ".service") + ".pid"}
	if u.PIDFile != "" {
		files = slices.Insert(files, 0, strings.TrimPrefix(path.Clean(u.PIDFile), "/"))
	}
	for _, f := range files {
		b, err := readSmall(root, f)
		if err != nil {
			continue
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil || n <= 0 {
			continue
		}
		u.PIDFile = "/" + f
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", n)); errors.Is(err, fs.ErrNotExist) {
			u.StalePID = n
		}
		break
	}
	return u
}
