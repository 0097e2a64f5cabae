package owner

import (
	"fmt"
	"slices"
	"strings"
)

// Instruction is a change that the owner's own program makes.
type Instruction struct {
	Owner Kind     `json:"owner"`
	Do    []string `json:"do"`
	Undo  []string `json:"undo"`
	// Query ends with status 0 when the change is there and with 1 when not.
	Query []string `json:"query,omitempty"`
	// Files are the owner's own files that hold Mark when the change is there, for
	// an owner that cannot be asked.
	Files []string `json:"files,omitempty"`
	Mark  string   `json:"mark,omitempty"`
	// Lasts: the change is on disk as soon as it is made.
	Lasts bool `json:"lasts,omitempty"`
}

// String is what an operator would type.
func (i *Instruction) String() string { return strings.Join(i.Do, " ") }

// Check refuses what no plan holds: an instruction is read from a journal.
func (i *Instruction) Check() error {
	program := map[Kind]string{UFW: "ufw", Firewalld: "firewall-cmd"}[i.Owner]
	if program == "" {
		return fmt.Errorf("no program for owner %q", i.Owner)
	}
	for _, argv := range [][]string{i.Do, i.Undo, i.Query} {
		if len(argv) > 0 && argv[0] != program {
			return fmt.Errorf("%q is not the program of %s", argv[0], i.Owner)
		}
		if slices.ContainsFunc(argv, func(a string) bool {
			return strings.ContainsFunc(a, func(r rune) bool { return r < 0x20 || r == 0x7f })
		}) {
			return fmt.Errorf("control characters in a command")
		}
	}
	if len(i.Do) == 0 || len(i.Undo) == 0 || len(i.Query) == 0 && (i.Mark == "" || len(i.Files) == 0) {
		return fmt.Errorf("incomplete instruction")
	}
	for _, f := range i.Files {
		if !slices.Contains(ufwRules, f) {
			return fmt.Errorf("%q is not a file of %s", f, i.Owner)
		}
	}
	return nil
}
