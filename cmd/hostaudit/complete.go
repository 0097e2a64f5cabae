package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hostaudit/hostaudit/audit/checks"
	"github.com/hostaudit/hostaudit/audit/report"
)

// complete tells shells what may stand where: ids, and the words of flags. It
// reads no host, so that it is quick and needs no root.
func complete(root *cobra.Command) {
	words := map[string][]string{
		"fail-on": {"critical", "warning", "info", "never"}, "color": {"auto", "always", "never"}, "proto": {"tcp", "udp"},
	}
	for _, c := range root.Commands() {
		switch c.Name() {
		case "checks", "fix":
			c.ValidArgsFunction = ids(c.Name() == "checks")
		case "scan", "ports", "version", "confirm", "history", "recover":
			c.ValidArgsFunction = cobra.NoFileCompletions
		}
		words["format"] = []string{"text", "json"}
		switch c.Name() {
		case "scan":
			words["format"] = report.Formats()
		case "watch":
			words["format"] = []string{"text", "json", "ndjson"}
		}
		for name, list := range words {
			if c.Flags().Lookup(name) != nil {
				if err := c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp)); err != nil {
					panic(err) // a flag that was just looked up
				}
			}
		}
	}
}

// ids completes ids of findings, and of checks where both will do.
func ids(checksToo bool) cobra.CompletionFunc {
	return func(_ *cobra.Command, have []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var all []cobra.Completion
		for _, c := range checks.All() {
			if checksToo && len(have) > 0 {
				break // it takes one
			}
			names := c.FindingIDs()
			if checksToo {
				names = append([]string{c.ID}, names...)
			}
			for _, id := range names {
				if entry := cobra.CompletionWithDesc(id, c.Title); strings.HasPrefix(id, begun) && !slices.Contains(have, id) && !slices.Contains(all, entry) {
					all = append(all, entry)
				}
			}
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}
