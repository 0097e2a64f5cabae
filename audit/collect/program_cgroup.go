package collect

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
)

// cgroupHooks are the places of a control group where a program decides about
// packets of the sockets in it. Those that decide about the making of sockets
// (create, bind, connect) have had their say about a socket that listens.
var cgroupHooks = []struct {
	attach  ebpf.AttachType
	name    string
	in, out bool
}{
	{ebpf.AttachCGroupInetIngress, "ingress", true, false},
	{ebpf.AttachCGroupInetEgress, "egress", false, true},
	{ebpf.AttachCGroupUDP4Sendmsg, "sendmsg4", false, true},
	{ebpf.AttachCGroupUDP6Sendmsg, "sendmsg6", false, true},
}

// cgroupFact is one control group and the programs in force for its sockets,
// those of its ancestors included.
type cgroupFact struct {
	// Path from the root of the mounted hierarchy; "" where the group has been
	// removed while a socket of it lives on, or is outside our cgroup namespace.
	// The programs of a removed group stay in force as long as its sockets
	// (kernel/bpf/cgroup.c, cgroup_bpf_offline), and nobody can ask for them.
	Path     listeners.HostText `json:"path"`
	Programs []cgroupProgram    `json:"programs,omitempty"`
}

type cgroupProgram struct {
	ID   uint32 `json:"id"`
	Hook int    `json:"hook"` // index into cgroupHooks
	// At is the group it was attached to; "" where that is out of sight.
	At listeners.HostText `json:"at"`
}

// cgroupPrograms gives the programs in force for sockets made in the control
// groups with these ids (INET_DIAG_CGROUP_ID).
func cgroupPrograms(a *answers, inv *bpfInventory, ids []uint64) ([]reach.Program, error) {
	var out []reach.Program
	for _, id := range ids {
		b, err := a.one(fmt.Sprintf("cgroup %d", id), func() ([]byte, error) {
			f, err := liveCgroup(id)
			if err != nil {
				return nil, err
			}
			return json.Marshal(f)
		})
		if err != nil {
			return out, fmt.Errorf("read programs of control group %d: %w", id, err)
		}
		var f cgroupFact
		if err := json.Unmarshal(b, &f); err != nil {
			return out, fmt.Errorf("read programs of control group %d: %w", id, err)
		}
		if f.Path == "" {
			out = append(out, reach.Program{Kind: "cgroup", Place: fmt.Sprintf("control group %d, which is removed or out of sight: what is attached to it cannot be told", id), CgroupID: id, In: true, Out: true})
			continue
		}
		for _, p := range f.Programs {
			if p.Hook < 0 || p.Hook >= len(cgroupHooks) {
				return out, fmt.Errorf("read programs of control group %d: hook %d", id, p.Hook)
			}
			h := cgroupHooks[p.Hook]
			place := string(p.At) + " " + h.name
			if p.At == "" {
				place = "above " + string(f.Path) + " " + h.name
			}
			out = append(out, reach.Program{Kind: "cgroup", Name: inv.name(p.ID), ID: p.ID, Place: place, Cgroup: string(f.Path), CgroupID: id, In: h.in, Out: h.out})
		}
	}
	return out, nil
}

// liveCgroup asks the kernel (BPF_PROG_QUERY, CAP_NET_ADMIN).
func liveCgroup(id uint64) (*cgroupFact, error) {
	mount, err := cgroupMount()
	if err != nil {
		return nil, err
	}
	dir, err := openCgroup(mount, id)
	if errors.Is(err, fs.ErrNotExist) {
		return &cgroupFact{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	name, err := os.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", dir.Fd()))
	if err != nil {
		return nil, err
	}
	here := path.Clean("/" + strings.TrimPrefix(name, mount))
	f := &cgroupFact{Path: listeners.HostText(here)}
	// attached are the programs that hang on each group from here to the top.
	attached := map[string][]uint32{}
	for hook, h := range cgroupHooks {
		const effective = 1 // BPF_F_QUERY_EFFECTIVE
		ids, err := queryPrograms(int(dir.Fd()), h.attach, effective)
		if err != nil {
			return nil, err
		}
		for _, prog := range ids {
			p := cgroupProgram{ID: prog, Hook: hook}
			for at := here; ; at = path.Dir(at) {
				key := fmt.Sprint(hook, at)
				ids, asked := attached[key]
				if !asked {
					// A group that may not be looked into leaves the place unknown.
					if d, err := os.Open(filepath.Join(mount, at)); err == nil {
						ids, _ = queryPrograms(int(d.Fd()), h.attach, 0)
						d.Close()
					}
					attached[key] = ids
				}
				if slices.Contains(ids, prog) {
					p.At = listeners.HostText(at)
					break
				}
				if at == "/" {
					break
				}
			}
			f.Programs = append(f.Programs, p)
		}
	}
	return f, nil
}

// cgroupMount is where the unified hierarchy is mounted.
func cgroupMount() (string, error) {
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(b) {
		fields := strings.Fields(string(line))
		if i := slices.Index(fields, "-"); i >= 6 && i+1 < len(fields) && fields[i+1] == "cgroup2" {
			return fields[4], nil
		}
	}
	return "", errors.New("the unified control group hierarchy (cgroup2) is not mounted")
}

// openCgroup opens a control group by its id: by its file handle (fs/kernfs,
// FILEID_KERNFS), or by looking for it where that is not allowed.
func openCgroup(mount string, id uint64) (*os.File, error) {
	top, err := os.Open(mount)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	const kernfs = 0xfe
	h := unix.NewFileHandle(kernfs, binary.NativeEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(int(top.Fd()), h, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err == nil {
		return os.NewFile(uintptr(fd), "cgroup"), nil
	}
	// ESTALE says that there is none, or none that we may open.
	return findCgroup(mount, id)
}

// maxCgroups bounds the search.
const maxCgroups = 20_000

func findCgroup(mount string, id uint64) (*os.File, error) {
	found, seen := "", 0
	err := filepath.WalkDir(mount, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // gone, or not ours to see
		}
		if seen++; seen > maxCgroups {
			return fmt.Errorf("more than %d control groups", maxCgroups)
		}
		var st unix.Stat_t
		if unix.Lstat(p, &st) == nil && st.Ino == id {
			found = p
			return fs.SkipAll
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if found == "" {
		return nil, fs.ErrNotExist
	}
	return os.Open(found)
}
