package sysctl

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// layout is one generated set of configuration files.
type layout struct {
	rng   *rand.Rand
	next  int // values are used once (but for repeated lines), so that a value names its line
	nodes []string
	lines []string // written so far: a repeated line keeps its first place under systemd
}

// watched are the keys that the generated files set: all of them belong to the
// network namespace and take any number from 1000 to 60000.
var watched = []Key{
	"net.core.somaxconn",
	"net.core.optmem_max",
	"net.ipv4.tcp_max_syn_backlog",
	"net.ipv4.tcp_max_tw_buckets",
	"net.ipv4.tcp_notsent_lowat",
	"net.ipv4.tcp_limit_output_bytes",
	"net.ipv4.tcp_challenge_ack_limit",
	"net.ipv4.conf.all.tag",
	"net.ipv4.conf.default.tag",
	"net.ipv4.conf.lo.tag",
	"net.ipv4.conf.d0.tag",
	"net.ipv4.conf.v/1.tag",
	"net.ipv4.conf.all.medium_id",
	"net.ipv4.conf.default.medium_id",
	"net.ipv4.conf.lo.medium_id",
	"net.ipv4.conf.d0.medium_id",
	"net.ipv4.conf.v/1.medium_id",
}

// globs are patterns that match watched keys, or nearly.
var globs = []string{
	"net.ipv4.conf.*.tag", "net.ipv4.conf.*.medium_id", "net.ipv4.conf.*.ta[!f]",
	"net.ipv4.conf.[dl]*.tag", "net.ipv4.conf.?0.tag", "net.ipv4.conf.v?1.medium_id",
	"net/ipv4/conf/*/tag", "net/ipv4/conf/v.?/tag", "net.ipv4.conf.v/*.tag",
	"net.ipv4.conf.[[:alpha:]]*.tag", "net.ipv4.conf.[^a-d]*.medium_id",
	"net.ipv4.conf.{lo,d0}.ta*", "net.ipv4.conf.{lo,d0}.tag", "net.ipv4.conf.d[0.tag",
	"net.ipv4.tcp_max_*", "net.ipv4.tcp_m?x_tw_buckets", "net.core.so[a-n]axconn", "net.c*.optmem_max",
	"*.core.somaxconn", "net..core.somax*", "net/../net/core/o*max", "/net/core/optme[m]_max",
	"net.ipv4.conf.\\*.tag", "net.ipv4.co*f.*0.m*_id", "net.ipv4.conf.l[]o].tag", "net.ipv4.nothing.*",
	"net.ipv4.conf.*", "net.ipv4.conf.*.",
	"*/*/*/*/tag", "net.ipv4.*.*.medium_id", "/net/ipv4/conf/*/tag/", "net/ipv4/conf//*/tag", "*", "**", "net.ipv4.conf.v.*.tag", "net/ipv4/conf/v.1/*",
	"net.ipv4.conf.[!-~]*.tag", "net.ipv4.conf.[]d]0.tag", "net.ipv4.conf.[d-]0.tag", "net.core.somaxcon[n", "net.core.somaxcon[[=n=]]", "net.ipv4.conf.*.*",
}

func (l *layout) pick(list ...string) string { return list[l.rng.IntN(len(list))] }

func (l *layout) chance(percent int) bool { return l.rng.IntN(100) < percent }

// value is a fresh number, now and then in a spelling that the kernel takes
// otherwise or not at all.
func (l *layout) value() string {
	l.next++
	n := 1000 + l.next
	switch l.rng.IntN(24) {
	case 0:
		return fmt.Sprintf("%#x", n)
	case 1:
		return fmt.Sprintf("0%o", n)
	case 2:
		return l.pick(`"`+fmt.Sprint(n)+`"`, "abc", "", fmt.Sprint(n)+"k", fmt.Sprint(n)+",5", "0x", "+5")
	case 3:
		return fmt.Sprintf("%d\t7 8", n)
	}
	return fmt.Sprint(n)
}

// name is a key in one of the spellings that people and programs use.
func (l *layout) name() string {
	if l.chance(25) {
		return globs[l.rng.IntN(len(globs))]
	}
	k := watched[l.rng.IntN(len(watched))]
	dotted, path := string(k), k.Path()
	switch l.rng.IntN(19) {
	case 0, 1:
		return path
	case 16: // where it stands, of which the loaders make something else
		return l.pick("/proc/sys/", "proc.sys.", "/proc/sys/net/../", "./", "/./", "//") + path
	case 17:
		return path + l.pick("/", "/.", "/..", "//", "/../"+baseName(path))
	case 18: // dots and slashes in one name
		return strings.Replace(dotted, ".", "/", 1+l.rng.IntN(2))
	case 2:
		return "/" + path
	case 3:
		return strings.Replace(dotted, ".", "..", 1)
	case 4:
		return strings.Replace(path, "net/", "net/../net/", 1)
	case 5:
		return strings.Replace(path, "net/", "net/./", 1)
	case 6:
		return dotted + l.pick(".", "x", "/x", " ")
	case 7:
		return l.pick("net.ipv4.no_such_key", "../../etc/passwd", "net/ipv4/../../../../etc/shadow", "", ".", "/", "net", "net.core", "x", "net.ipv4.conf.nodev.tag", "net.Core.somaxconn")
	case 8:
		return "." + dotted
	}
	return dotted
}

// line is one line without its end.
func (l *layout) line() string {
	space := func() string { return l.pick("", " ", "  ", "\t", " \t ", "", " ", "\v", "\f ") }
	assign := func(name string) string { return name + space() + "=" + space() + l.value() + space() }
	switch l.rng.IntN(36) {
	case 30: // about as long as the pieces in which sysctl(8) writes
		return l.name() + " = " + l.value() + l.pick(",", " ", ",5,", " ,") + strings.Repeat(l.pick("9", "9,", " ", "x"), 4060+l.rng.IntN(60))
	case 31: // about as long as systemd-sysctl reads
		if l.chance(85) {
			return ""
		}
		return "#" + strings.Repeat("x", 1<<20-3+l.rng.IntN(6))
	case 32:
		return l.pick("-", "--", "=", "-=", " - ", "-=1", "#", ";", "[section]", "key:", "\"", "include /etc/x.conf", "\xa0"+assign(l.name()))
	case 33: // continued as in a shell, which no loader knows
		return assign(l.name()) + "\\\n" + l.value()
	case 34:
		return "export " + assign(l.name())
	case 35:
		return space() + "-" + globs[l.rng.IntN(len(globs))] + space()
	case 0:
		return "# " + assign(l.name())
	case 1:
		return space() + ";" + assign(l.name())
	case 2:
		return ""
	case 3:
		return space()
	case 4, 5, 6:
		return space() + "-" + assign(l.name())
	case 7, 8, 9:
		return space() + "-" + space() + l.name() + space()
	case 10:
		return l.name() + " " + l.value() // no "="
	case 11:
		return "- " + assign(l.name())
	case 12:
		return "--" + assign(l.name())
	case 13:
		return assign(l.name()) + " # comment"
	case 14:
		return "=" + l.value()
	case 15:
		return l.name() + " == " + l.value()
	case 16:
		return "# " + strings.Repeat("long ", 1000)
	case 17:
		return l.name() + " = " + strings.Repeat(" ", 5000) + l.value()
	case 18:
		return l.name() + " = " + l.value() + "\x00" + l.name() + " = " + l.value()
	case 19:
		return "\\" + assign(l.name())
	case 20:
		return "é\xff\xfe" + assign(l.name())
	}
	return space() + assign(l.name())
}

// content is a whole file.
func (l *layout) content() string {
	eol := l.pick("\n", "\n", "\n", "\n", "\r\n", "\r\n", "\r", "\n\n", "\n\r", "\r\n\r\n")
	var b strings.Builder
	switch l.rng.IntN(50) {
	case 0, 1, 2:
		b.WriteString("\ufeff")
	case 3:
		b.WriteString(l.pick("\ufeff\ufeff", "\ufeff\n", "\xff\xfe", "\ufeff#\n", "\ufeff "))
	case 4: // UTF-16, as editors of other systems save
		var wide strings.Builder
		wide.WriteString("\xff\xfe")
		for _, c := range []byte(l.line() + "\r\n" + l.line() + "\n") {
			wide.WriteByte(c)
			wide.WriteByte(0)
		}
		return wide.String()
	}
	n := 1 + l.rng.IntN(7)
	for i := range n {
		line := l.line()
		if len(l.lines) > 0 && l.chance(12) {
			line = l.pick(l.lines...)
		}
		l.lines = append(l.lines, line)
		b.WriteString(line)
		if i < n-1 || l.chance(80) {
			b.WriteString(eol)
		}
	}
	return b.String()
}

var fileNames = []string{
	"10-a.conf", "10-a.conf", "50-b.conf", "50-b.conf", "60 space.conf", "90-c.conf", "99-sysctl.conf", "99-sysctl.conf",
	"99-zz.conf", "Zz.conf", "_.conf", "ab.conf", "ac.conf", "x.conf", "x.conf", "é.conf",
	".hidden.conf", ".conf", "-.conf", "x.conf~", "README", "x.CONF", "x.conf.dpkg-old", "conf", "aconf",
	"\xff.conf", "a\nb.conf", "-x.conf", " .conf", "x.conf.conf", "10_a.conf", "9.conf", strings.Repeat("n", 250) + ".conf",
	"a{b,c}.conf", "[x].conf", "?.conf", "1*.conf", "{}.conf", "{x.conf", "a\\b.conf", "[.conf",
}

// build writes the layout below root, whose configuration directories are empty.
func (l *layout) build(root string) error {
	put := func(p, text string) error {
		l.nodes = append(l.nodes, fmt.Sprintf("%s: %.400q", p, text))
		return os.WriteFile(filepath.Join(root, p), []byte(text), 0o644)
	}
	link := func(p, target string) error {
		l.nodes = append(l.nodes, p+" -> "+target)
		return os.Symlink(target, filepath.Join(root, p))
	}
	if err := os.MkdirAll(filepath.Join(root, "opt/sysctl.d"), 0o755); err != nil {
		return err
	}
	if err := put("opt/other.conf", l.content()); err != nil {
		return err
	}
	for _, dir := range append([]string{"opt/sysctl.d"}, sysctlDirs...) {
		dir = strings.TrimPrefix(dir, "/")
		if dir != "opt/sysctl.d" {
			var err error
			switch n := l.rng.IntN(20); {
			case dir == "lib/sysctl.d" && n < 8:
				err = link(dir, l.pick("../usr/lib/sysctl.d", "/usr/lib/sysctl.d"))
				if err == nil {
					continue
				}
			case n == 8:
				err = link(dir, "/opt/sysctl.d")
				if err == nil {
					continue
				}
			case n == 9:
				err = link(dir, "/opt/nowhere")
				if err == nil {
					continue
				}
			case n == 10:
				err = put(dir, "net.core.somaxconn = 4")
				if err == nil {
					continue
				}
			case n == 11:
				err = link(dir, "../etc/../etc/sysctl.d")
				if err == nil {
					continue
				}
			case n == 12:
				err = link(dir, l.pick("sysctl.d", "/usr/lib/sysctl.d", "/etc/sysctl.d", "../sysctl.d"))
				if err == nil {
					continue
				}
			case n < 14:
				continue // not there
			default:
				err = os.MkdirAll(filepath.Join(root, dir), 0o755)
			}
			if err != nil {
				return err
			}
		}
		for range l.rng.IntN(5) {
			p := dir + "/" + fileNames[l.rng.IntN(len(fileNames))]
			if _, err := os.Lstat(filepath.Join(root, p)); err == nil {
				continue
			}
			var err error
			switch l.rng.IntN(19) {
			case 16: // one after another
				err = link(p, l.pick(fileNames...))
			case 17:
				err = link(p, l.pick("/opt", "/opt/sysctl.d", ".", "..", "/dev/null/", "//dev//null", "../../dev/null"))
			case 18:
				if err = put(p, l.content()); err == nil {
					err = os.Chmod(filepath.Join(root, p), 0)
				}
			case 0, 1:
				err = link(p, "/dev/null")
			case 2:
				err = link(p, "/nowhere/at.all")
			case 3:
				err = link(p, l.pick("../sysctl.conf", "/etc/sysctl.conf", "../../etc/sysctl.conf"))
			case 4:
				err = link(p, l.pick("/opt/other.conf", "../../opt/other.conf", "../../../../../opt/other.conf"))
			case 5:
				err = link(p, baseName(p)) // to itself
			case 6:
				err = os.Mkdir(filepath.Join(root, p), 0o755)
			case 7:
				err = put(p, "")
			default:
				err = put(p, l.content())
			}
			if err != nil {
				return err
			}
		}
	}
	switch l.rng.IntN(10) {
	case 0, 1:
	case 2:
		return link("etc/sysctl.conf", l.pick("/dev/null", "nowhere", "/opt/other.conf", "/opt", "sysctl.conf"))
	case 3:
		return os.Mkdir(filepath.Join(root, "etc/sysctl.conf"), 0o755)
	default:
		return put("etc/sysctl.conf", l.content())
	}
	return nil
}

// clear removes what build made.
func clearLayout(root string) error {
	for _, p := range append([]string{"/etc/sysctl.conf", "/opt/sysctl.d", "/opt/other.conf"}, sysctlDirs...) {
		if err := os.RemoveAll(filepath.Join(root, p)); err != nil {
			return err
		}
	}
	return nil
}
