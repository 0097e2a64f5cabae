package listeners

import (
	"bytes"
	"errors"
	"strings"
)

// Container is a container as the cgroup of a process names it.
type Container struct {
	Runtime string   `json:"runtime"` // docker, containerd, cri-o, podman, lxc, nspawn, kubernetes
	ID      HostText `json:"id"`      // full id, or the name where the runtime uses names
	Pod     HostText `json:"pod,omitempty"`
	Name    HostText `json:"name,omitempty"` // where the runtime keeps it readable on the host
}

func (p *Process) readCgroup(r *procReader, dir int) error {
	b, err := r.read(dir, "cgroup", maxProcFile, single)
	if err != nil {
		return err
	}
	path, err := parseCgroup(b)
	if err != nil {
		return err
	}
	p.Cgroup = HostText(path)
	p.Unit = HostText(unitOf(path))
	p.Container = containerOf(path)
	return nil
}

// parseCgroup gives the most telling path of /proc/PID/cgroup (man 7 cgroups):
// the one that names a container, else the unified or systemd's own, else any
// that is not the root (hosts where a runtime only uses version 1 controllers).
func parseCgroup(b []byte) (string, error) {
	var unified, systemd, other string
	lines := 0
	for line := range bytes.Lines(b) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		f := strings.SplitN(string(line), ":", 3)
		if len(f) != 3 {
			return "", errors.New("parse cgroup: line without three fields")
		}
		lines++
		if containerOf(f[2]) != nil {
			return f[2], nil
		}
		switch {
		case f[0] == "0" && f[1] == "":
			unified = f[2]
		case f[1] == "name=systemd":
			systemd = f[2]
		case other == "" && f[2] != "/":
			other = f[2]
		}
	}
	if lines == 0 {
		return "", errors.New("parse cgroup: empty")
	}
	for _, path := range []string{unified, systemd, other} {
		if path != "" && path != "/" {
			return path, nil
		}
	}
	return "/", nil
}

// unitOf names the systemd unit of a cgroup path: the deepest service, scope,
// socket, mount or swap. A unit of a user's own manager is told with its
// manager: "user@1000.service/app.service".
func unitOf(path string) string {
	unit, manager := "", ""
	for part := range strings.SplitSeq(path, "/") {
		switch {
		case strings.HasPrefix(part, "user@") && strings.HasSuffix(part, ".service"):
			manager, unit = part, part
		case isUnit(part):
			unit = part
		}
	}
	if manager != "" && unit != manager {
		return manager + "/" + unit
	}
	return unit
}

func isUnit(part string) bool {
	for _, suffix := range []string{".service", ".scope", ".socket", ".mount", ".swap"} {
		if len(part) > len(suffix) && strings.HasSuffix(part, suffix) {
			return true
		}
	}
	return false
}

// Scopes that runtimes make, by the prefix before the id.
var scopeRuntimes = []struct{ prefix, runtime string }{
	{"docker-", "docker"},
	{"cri-containerd-", "containerd"},
	{"nerdctl-", "containerd"},
	{"containerd-", "containerd"},
	{"crio-", "cri-o"},
	{"libpod-", "podman"},
}

// Directories that runtimes without systemd put ids into.
var dirRuntimes = map[string]string{
	"docker": "docker", "libpod_parent": "podman", "nerdctl": "containerd", "buildkit": "containerd", "crio": "cri-o",
	"lxc": "lxc", "lxc.payload": "lxc",
}

// containerOf recognises the container in a cgroup path, nil where there is
// none. The innermost wins (containers within containers).
func containerOf(path string) *Container {
	parts := strings.Split(path, "/")
	var found *Container
	pod, kube := "", false
	for i, part := range parts {
		if strings.HasPrefix(part, "kubepods") {
			kube = true
		}
		if kube {
			if uid, ok := podOf(part); ok {
				pod = uid
				continue
			}
		}
		parent := ""
		if i > 0 {
			parent = parts[i-1]
		}
		if c := containerPart(parent, part, kube && pod != ""); c != nil {
			c.Pod = HostText(pod)
			found = c
		}
	}
	return found
}

func containerPart(parent, part string, inPod bool) *Container {
	if name, ok := strings.CutSuffix(part, ".scope"); ok {
		for _, s := range scopeRuntimes {
			if id, ok := strings.CutPrefix(name, s.prefix); ok && isID(id) {
				return &Container{Runtime: s.runtime, ID: HostText(id)}
			}
		}
		return nil
	}
	if name, ok := strings.CutPrefix(part, "lxc.payload."); ok && name != "" {
		return &Container{Runtime: "lxc", ID: HostText(name)}
	}
	if name, ok := strings.CutPrefix(part, "systemd-nspawn@"); ok {
		if name, ok = strings.CutSuffix(name, ".service"); ok && name != "" {
			return &Container{Runtime: "nspawn", ID: HostText(name)}
		}
	}
	if id, ok := strings.CutPrefix(part, "libpod-"); ok && isID(id) {
		return &Container{Runtime: "podman", ID: HostText(id)}
	}
	// containerd's own naming with the systemd driver off: "system.slice:cri-containerd:ID".
	if i := strings.LastIndexByte(part, ':'); i >= 0 && isID(part[i+1:]) && strings.Contains(part, "containerd") {
		return &Container{Runtime: "containerd", ID: HostText(part[i+1:])}
	}
	if runtime, ok := dirRuntimes[parent]; ok && part != "" && (isID(part) || runtime == "lxc") {
		return &Container{Runtime: runtime, ID: HostText(part)}
	}
	if inPod && isID(part) {
		return &Container{Runtime: "kubernetes", ID: HostText(part)}
	}
	return nil
}

// podOf reads the uid of a pod: "pod1234-…" or "kubepods-besteffort-pod1234_….slice",
// where systemd cannot have dashes.
func podOf(part string) (string, bool) {
	part = strings.TrimSuffix(part, ".slice")
	i := strings.LastIndex(part, "pod")
	if i < 0 || i > 0 && part[i-1] != '-' {
		return "", false
	}
	uid := strings.ReplaceAll(part[i+len("pod"):], "_", "-")
	if len(uid) < 8 || strings.HasPrefix(uid, "s") {
		return "", false
	}
	return uid, true
}

// isID: container ids are 64 hexadecimal digits (docker, podman, CRI), older
// or shortened ones at least 12.
func isID(s string) bool {
	if len(s) < 12 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
