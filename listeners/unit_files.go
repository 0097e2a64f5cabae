package listeners

import (
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// unitDirs are the directories of systemd's units, strongest first (systemd.unit(5)).
var unitDirs = []string{"etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}

const maxUnitFile = 1 << 20

// UnitFiles is what a unit asks for with LimitNOFILE=: the hard limit, -1 for
// infinity, 0 where it asks for nothing or its files could not be read; and where.
type UnitFiles struct {
	Limit int64    `json:"limit"`
	File  HostText `json:"file"` // below the root
	Line  int      `json:"line"`
}

// unitFileLimits looks up units below a root, each once.
type unitFileLimits struct {
	root  string
	known map[HostText]*UnitFiles
}

func newUnitFileLimits(root string) *unitFileLimits {
	if root == "" {
		root = "/"
	}
	return &unitFileLimits{root: root, known: map[HostText]*UnitFiles{}}
}

// of gives what the unit asks for, nil where it asks for nothing.
func (u *unitFileLimits) of(unit HostText) *UnitFiles {
	name := string(unit)
	if !strings.HasSuffix(name, ".service") || strings.ContainsAny(name, "/\x00") {
		return nil
	}
	if got, ok := u.known[unit]; ok {
		return got
	}
	var got *UnitFiles
	for _, p := range u.sources(name) {
		if b, err := readBeneath(u.root, p, maxUnitFile); err == nil {
			got = unitNoFile(string(b), p, got)
		}
	}
	u.known[unit] = got
	return got
}

// sources are the files that make up a unit, in the order in which systemd reads
// them: the unit itself from the strongest directory, then drop-ins by name, of
// equal names the strongest.
func (u *unitFileLimits) sources(name string) []string {
	names := []string{name}
	if before, instance, ok := strings.Cut(name, "@"); ok && instance != ".service" {
		names = append(names, before+"@.service")
	}
	var out []string
main:
	for _, n := range names {
		for _, dir := range unitDirs {
			if _, err := readBeneath(u.root, dir+"/"+n, maxUnitFile); err == nil {
				out = append(out, dir+"/"+n)
				break main
			}
		}
	}
	by := map[string]string{}
	for _, n := range append(slices.Clone(names), "service") {
		for _, dir := range unitDirs {
			for _, conf := range u.list(dir + "/" + n + ".d") {
				if strings.HasSuffix(conf, ".conf") && by[conf] == "" {
					by[conf] = dir + "/" + n + ".d/" + conf
				}
			}
		}
	}
	var dropIns []string
	for conf := range by {
		dropIns = append(dropIns, conf)
	}
	slices.Sort(dropIns)
	for _, conf := range dropIns {
		out = append(out, by[conf])
	}
	return out
}

// list gives the names in a directory below the root.
func (u *unitFileLimits) list(p string) []string {
	root, err := unix.Open(u.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, p, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil
	}
	d := os.NewFile(uintptr(fd), p)
	defer d.Close()
	names, _ := d.Readdirnames(4096)
	return names
}

// unitNoFile reads LimitNOFILE= of one file over what those before it said
// (config_parse_rlimit): "soft:hard" or one number for both, with K, M, G, T of
// 1024; an empty value takes back.
func unitNoFile(text, file string, before *UnitFiles) *UnitFiles {
	section := ""
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section != "[Service]" || strings.TrimSpace(key) != "LimitNOFILE" {
			continue
		}
		value = strings.TrimSpace(value)
		if value == "" {
			before = nil
			continue
		}
		_, hard, two := strings.Cut(value, ":")
		if !two {
			hard = value
		}
		if n, ok := limitNumber(hard); ok {
			before = &UnitFiles{Limit: n, File: HostText("/" + file), Line: i + 1}
		}
	}
	return before
}

// limitNumber reads a number of descriptors, -1 for infinity.
func limitNumber(s string) (int64, bool) {
	if s == "infinity" {
		return unlimited, true
	}
	digits := strings.TrimRight(s, "KMGTPE")
	shift := 0
	if suffix := s[len(digits):]; suffix != "" {
		if len(suffix) > 1 {
			return 0, false
		}
		shift = 10 * (1 + strings.Index("KMGTPE", suffix))
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, false
	}
	return n << shift, true
}
