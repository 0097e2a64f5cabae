package config

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/sysctl"
)

// DefaultFile is read where it exists.
const DefaultFile = "/etc/hostaudit/hostaudit.yaml"

// EnvPrefix begins every environment variable that is ours; one with this
// prefix that is not known is an error.
const EnvPrefix = "HOSTAUDIT_"

// Settings is the merged configuration.
type Settings struct {
	Audit audit.Config
	// FailOn is the severity from which findings make the exit code 1, "" for never.
	FailOn audit.Severity
	Format string
	// FormatAsked: the format comes from a flag or the environment, not from a
	// file or by default; then a command that does not have it refuses.
	FormatAsked bool
	Color       string // auto, always, never
	ASCII       bool
	Width       int // 0: that of the terminal
	Sample      time.Duration
	Quick       bool
	Root        string
	// Files are the configuration files that were read.
	Files []string
}

// Error is a mistake in the configuration.
type Error struct {
	Source string // file, or "environment HOSTAUDIT_FORMAT"
	Line   int    // 0 where there is none
	Key    string // "services[0].port", "" for the whole
	Why    string
}

func (e *Error) Error() string {
	s := e.Source
	if e.Line > 0 {
		s += fmt.Sprintf(":%d", e.Line)
	}
	if e.Key != "" {
		s += ": " + e.Key
	}
	return s + ": " + e.Why
}

// Options say where the configuration comes from.
type Options struct {
	// Skip leaves DefaultFile out: an answer about another host's snapshot is not
	// this host's business.
	Skip bool
	// Explicit is --config; it must exist. "" for none (then the environment's).
	Explicit string
	// Root is beneath which DefaultFile is taken, "" for /.
	Root    string
	Environ []string
	Flags   *pflag.FlagSet // nil for none
	// EUID is the effective user id, for the ownership of files.
	EUID int
}

// Load reads and merges everything.
func Load(o Options) (*Settings, error) {
	env, err := environment(o.Environ)
	if err != nil {
		return nil, err
	}
	v := viper.New()
	for _, k := range scalars {
		v.SetDefault(k.name, k.def)
	}
	s := &Settings{Root: o.Root}
	if s.Root == "" {
		s.Root = env["root"]
	}
	if s.Root == "" {
		s.Root = "/"
	}
	if !o.Skip {
		err := s.merge(v, o.EUID, DefaultFile, func() ([]byte, error) { return readBeneath(s.Root, DefaultFile, o.EUID) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	explicit := o.Explicit
	if explicit == "" {
		explicit = env["config"]
	}
	if explicit != "" {
		if err := s.merge(v, o.EUID, explicit, func() ([]byte, error) { return readFile(explicit, o.EUID) }); err != nil {
			return nil, err
		}
	}
	for name, text := range env {
		switch name {
		case "services", "accept":
			m, err := decode([]byte(name+": "+text+"\n"), "environment "+envName(name))
			if err != nil {
				return nil, err
			}
			if err := v.MergeConfigMap(m); err != nil {
				return nil, fmt.Errorf("merge environment: %w", err)
			}
		case "config", "root":
		default:
			v.Set(name, text) // over every file; not BindEnv, which reads the process's own environment
		}
	}
	asked := env["format"] != ""
	if o.Flags != nil {
		o.Flags.Visit(func(f *pflag.Flag) {
			if _, ours := scalar(f.Name); ours {
				v.Set(f.Name, f.Value.String())
				asked = asked || f.Name == "format"
			}
		})
	}
	return s, s.fill(v, asked)
}

func (s *Settings) merge(v *viper.Viper, euid int, name string, read func() ([]byte, error)) error {
	data, err := read()
	if err != nil {
		return err
	}
	m, err := decode(data, name)
	if err != nil {
		return err
	}
	s.Files = append(s.Files, name)
	if err := v.MergeConfigMap(m); err != nil {
		return fmt.Errorf("merge %s: %w", name, err)
	}
	return nil
}

// fill turns the merged values into settings. Each value has been checked where
// it came from.
func (s *Settings) fill(v *viper.Viper, asked bool) error {
	s.Format, s.FormatAsked = v.GetString("format"), asked
	s.Color = v.GetString("color")
	s.ASCII = v.GetBool("ascii")
	s.Width = v.GetInt("width")
	s.Sample = v.GetDuration("sample")
	s.Quick = v.GetBool("quick")
	s.FailOn = audit.Severity(v.GetString("fail-on"))
	if s.FailOn == "never" {
		s.FailOn = ""
	}
	profile, ok := sysctl.ProfileByName(v.GetString("profile"))
	if !ok {
		return fmt.Errorf("profile %q is not known", v.GetString("profile"))
	}
	s.Audit.Profile = profile
	s.Audit.Services, _ = v.Get("services").([]audit.Service)
	s.Audit.Accept, _ = v.Get("accept").([]audit.Waiver)
	return nil
}

func envName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
}

// environment picks our variables out of the environment, by key, and checks
// them. An empty one counts as not set.
func environment(environ []string) (map[string]string, error) {
	known := []string{"services", "accept", "config", "root"}
	for _, k := range scalars {
		known = append(known, k.name)
	}
	out := map[string]string{}
	for _, kv := range environ {
		name, text, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, EnvPrefix) {
			continue
		}
		i := slices.IndexFunc(known, func(k string) bool { return envName(k) == name })
		if i < 0 {
			return nil, &Error{Source: "environment", Key: name, Why: "no such setting" + nearest(name, mapped(known, envName))}
		}
		if text == "" {
			continue
		}
		if k, ok := scalar(known[i]); ok {
			if err := k.check(text); err != nil {
				return nil, &Error{Source: "environment", Key: name, Why: err.Error()}
			}
		}
		out[known[i]] = text
	}
	return out, nil
}

func mapped(in []string, f func(string) string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = f(s)
	}
	return out
}

// Restrict holds the format to those that a command has: one that was asked for
// is refused, one from a file gives way to text.
func (s *Settings) Restrict(formats ...string) error {
	if len(formats) == 0 || slices.Contains(formats, s.Format) {
		return nil
	}
	if s.FormatAsked {
		return fmt.Errorf("format %q: this command has %s", s.Format, strings.Join(formats, ", "))
	}
	s.Format = "text"
	return nil
}
