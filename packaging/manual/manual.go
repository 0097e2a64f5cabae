// Package manual writes the manual pages from what the program itself says: the
// tree of commands that --help shows, the settings and the catalogue of checks.
// It is pure: pages are bytes by file name.
package manual

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostaudit/hostaudit/audit"
)

// Setting is a key of the configuration with one value.
type Setting struct{ Name, Default, Usage string }

// Book is what the pages are made from.
type Book struct {
	Root     *cobra.Command
	Checks   []*audit.Check
	Settings []Setting
	Version  string
	Date     time.Time // shown in the footer, as a day in UTC
}

// Pages returns every page by file name: hostaudit.8, hostaudit-scan.8, …,
// hostaudit.yaml.5, hostaudit-checks.5.
func (b Book) Pages() map[string][]byte {
	pages := map[string][]byte{"hostaudit.yaml.5": b.configuration(), "hostaudit-checks.5": b.catalogue()}
	for _, c := range Commands(b.Root) {
		pages[PageName(c)+".8"] = b.command(c)
	}
	return pages
}

// Commands lists the commands that people see, the root first.
func Commands(root *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{root}
	for _, c := range root.Commands() {
		if !c.Hidden {
			all = append(all, Commands(c)...)
		}
	}
	return all
}

// PageName is the name of a command's page: hostaudit-completion-bash.
func PageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

func (b Book) page(name string, section int, manual, what string) *roff {
	r := &roff{}
	r.title(name, section, b.Date.UTC().Format(time.DateOnly), b.Version, manual)
	// Ragged right: words here are long.
	r.WriteString(".ad l\n")
	r.section("name")
	r.WriteString(escape(name) + ` \- ` + escape(what) + "\n")
	return r
}

func (b Book) command(c *cobra.Command) []byte {
	r := b.page(PageName(c), 8, "System Administration", lower(c.Short))
	r.section("synopsis")
	args := strings.TrimPrefix(c.Use, c.Name())
	synopsis := bold(c.CommandPath())
	if c.HasAvailableSubCommands() {
		synopsis += " " + italic("COMMAND")
	}
	if c.HasAvailableFlags() {
		synopsis += " [" + italic("OPTION") + `...]`
	}
	r.WriteString(synopsis + escape(args) + "\n")
	r.section("description")
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	r.text(text)
	if c.HasAvailableSubCommands() {
		r.section("commands")
		for _, s := range c.Commands() {
			if !s.Hidden {
				r.item(bold(s.Name()), s.Short+"; see "+PageName(s)+"(8).")
			}
		}
	}
	b.flags(r, c)
	if c.Example != "" {
		r.section("examples")
		r.verbatim(c.Example)
	}
	if c == b.Root {
		r.section("exit status")
		for _, e := range ExitCodes() {
			r.item(bold(fmt.Sprint(e.Code)), e.Meaning)
		}
		r.section("environment")
		for _, s := range b.Settings {
			r.item(bold(Variable(s.Name)), sentence(s.Usage))
		}
		r.item(bold("HOSTAUDIT_SERVICES")+", "+bold("HOSTAUDIT_ACCEPT"), "The lists of hostaudit.yaml(5), as YAML.")
		r.item(bold("NO_COLOR"), "Where it is set, no colours unless --color always.")
		r.section("files")
		for _, f := range [][2]string{
			{"/etc/hostaudit/hostaudit.yaml", "Configuration, see hostaudit.yaml(5)."},
			{"/var/lib/hostaudit", "Journal and history of changes; root's alone."},
			{"/var/lib/hostaudit/reports", "The last reports, as the daily scan keeps them."},
			{"/run/hostaudit/lock", "Held by whoever changes the host."},
			{"hostaudit-scan.timer, hostaudit-scan.service", "The daily scan of the packages. It never changes the host."},
			{"hostaudit-recover.service", "Undoes at boot what was not confirmed before it, see hostaudit-recover(8)."},
			{"/usr/share/hostaudit/schema", "JSON Schema of everything that is printed as JSON."},
			{"/usr/share/hostaudit/prometheus", "Alert rules and a dashboard for --format prometheus."},
		} {
			r.item(italic(f[0]), f[1])
		}
	}
	r.section("see also")
	see := []string{}
	if c != b.Root {
		see = append(see, "hostaudit(8)")
	} else {
		for _, s := range c.Commands() {
			if !s.Hidden {
				see = append(see, PageName(s)+"(8)")
			}
		}
	}
	see = append(see, "hostaudit.yaml(5)", "hostaudit-checks(5)")
	r.references(see)
	return r.Bytes()
}

// references writes "bold(8)," entries.
func (r *roff) references(see []string) {
	for i, s := range see {
		name, section, _ := strings.Cut(s, "(")
		r.WriteString(".BR " + escape(name) + " (" + section)
		if i < len(see)-1 {
			r.WriteString(" ,")
		}
		r.WriteString("\n")
	}
}

func (b Book) flags(r *roff, c *cobra.Command) {
	c.InitDefaultHelpFlag()
	all := map[string]*pflag.Flag{}
	for _, set := range []*pflag.FlagSet{c.NonInheritedFlags(), c.InheritedFlags()} {
		set.VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				all[f.Name] = f
			}
		})
	}
	names := []string{}
	for name := range all {
		names = append(names, name)
	}
	if len(names) == 0 {
		return
	}
	slices.Sort(names)
	r.section("options")
	for _, name := range names {
		f := all[name]
		tag := bold("--" + name)
		if f.Shorthand != "" {
			tag = bold("-"+f.Shorthand) + ", " + tag
		}
		value, usage := pflag.UnquoteUsage(f)
		if f.NoOptDefVal == "" && value != "" {
			tag += " " + italic(strings.ToUpper(value))
		}
		if f.NoOptDefVal == "" && f.DefValue != "" && f.DefValue != "[]" {
			usage += " (default " + f.DefValue + ")"
		}
		r.item(tag, sentence(usage))
	}
}

// Exit is an exit code and what it says.
type Exit struct {
	Code    int
	Meaning string
}

// ExitCodes are those of the program.
func ExitCodes() []Exit {
	return []Exit{
		{0, "Done; nothing at or above --fail-on."},
		{1, "Findings at or above it; for reach with --from: not reachable."},
		{2, "The command line or the configuration is wrong."},
		{3, "The host could not be read completely; what is missing is named in the report. Outranks 1."},
		{4, "A change failed and was rolled back."},
		{5, "A change failed and could not be rolled back completely; what is left is listed."},
		{6, "Refused before anything was written."},
	}
}

// Variable is the environment variable of a setting.
func Variable(name string) string {
	return "HOSTAUDIT_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

func (b Book) configuration() []byte {
	r := b.page("hostaudit.yaml", 5, "File Formats", "configuration of hostaudit")
	r.section("synopsis")
	r.WriteString(italic("/etc/hostaudit/hostaudit.yaml") + "\n")
	r.section("description")
	r.text(`The file is YAML. After it come the file of --config, the environment (HOSTAUDIT_...) and the
options of the command line; later wins. An unknown key, a key that stands twice, a wrong
type or an impossible value is an error that names file, line and key. Anchors and aliases
are not allowed. For root, files that others can write are refused.`)
	r.section("services")
	r.text("services is a list of what this host is meant to serve. A service that its audience cannot reach is critical, and so is one that others than its audience can reach.")
	for _, k := range [][2]string{
		{"name", "How findings call it."},
		{"port", "1 to 65535."},
		{"proto", "tcp (the default) or udp."},
		{"audience", "everyone, host (this host only), or a list of networks such as [10.0.0.0/8]."},
		{"protocol", "What is spoken on the port, for example http or websocket."},
	} {
		r.item(bold(k[0]), k[1])
	}
	r.section("accept")
	r.text("accept is a list of findings that were weighed and are accepted. They show in the report as accepted and do not count.")
	for _, k := range [][2]string{
		{"id", "Id of the finding, see hostaudit-checks(5)."},
		{"subject", "Subject of the finding as the report shows it."},
		{"reason", "Why it is accepted."},
		{"until", "Last day on which it is, 2027-06-30; past it the finding counts again. Left out: no end."},
	} {
		r.item(bold(k[0]), k[1])
	}
	r.section("settings")
	r.text("Each is also an option of the commands that use it and an environment variable.")
	for _, s := range b.Settings {
		usage := s.Usage
		if s.Default != "" {
			usage += " (default " + s.Default + ")"
		}
		r.item(bold(s.Name)+", "+bold(Variable(s.Name)), sentence(usage))
	}
	r.section("examples")
	r.verbatim(`services:
  - {name: chat, port: 2346, proto: tcp, audience: everyone, protocol: websocket}
  - {name: db, port: 5432, proto: tcp, audience: [10.0.0.0/8]}
  - {name: cache, port: 6379, proto: tcp, audience: host}
accept:
  - {id: listener.loopback-only, subject: "tcp 127.0.0.1:9000", reason: "php-fpm behind nginx", until: 2027-06-30}
fail-on: warning`)
	r.section("see also")
	r.references([]string{"hostaudit(8)", "hostaudit-checks(5)"})
	return r.Bytes()
}

func (b Book) catalogue() []byte {
	r := b.page("hostaudit-checks", 5, "File Formats", "what hostaudit looks for")
	r.section("description")
	r.text("Every check of hostaudit, as 'hostaudit checks ID' explains it.")
	for _, c := range b.Checks {
		r.section(c.ID)
		r.WriteString(bold(c.Title) + "\n.PP\n")
		r.text(c.Explanation())
		r.item("Severity", string(c.Severity))
		if len(c.Reports) > 0 {
			r.item("Findings", strings.Join(c.Reports, ", "))
		}
		if len(c.Causes) > 0 {
			causes := []string{}
			for _, cause := range c.Causes {
				causes = append(causes, string(cause))
			}
			r.item("Clients see", strings.Join(causes, ", "))
		}
		r.item("Fix", string(c.Fix))
		r.item("References", strings.Join(c.Refs, ", "))
	}
	r.section("see also")
	r.references([]string{"hostaudit(8)", "hostaudit-checks(8)", "hostaudit.yaml(5)"})
	return r.Bytes()
}

// lower makes a synopsis of a heading.
func lower(s string) string {
	if len(s) > 1 && s[0] >= 'A' && s[0] <= 'Z' && (s[1] < 'A' || s[1] > 'Z') {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}

func sentence(s string) string {
	if s != "" && s[0] >= 'a' && s[0] <= 'z' {
		s = strings.ToUpper(s[:1]) + s[1:]
	}
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}
