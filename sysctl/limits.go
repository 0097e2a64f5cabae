package sysctl

import (
	"strings"
)

// Files that people write descriptor limits into, and that services never see.
var (
	limitsFiles = []string{"/etc/security/limits.conf"}
	limitsDirs  = []string{"/etc/security/limits.d", "/usr/lib/security/limits.d"}
	profiles    = []string{"/etc/profile", "/etc/bash.bashrc", "/etc/bashrc", "/etc/environment"}
	profileDirs = []string{"/etc/profile.d"}
)

var ruleLimits = &LintRule{
	ID: "limits.ineffective-for-services", Title: "a descriptor limit that services never see", Severity: Info,
	Why:     "limits.conf works through PAM and ulimit in /etc/profile in login shells: services that systemd, a supervisor or a container starts pass neither",
	Instead: "set LimitNOFILE= in the unit of the service and restart it; what counts is /proc/PID/limits of the listening process",
	Refs:    []string{"https://github.com/systemd/systemd/issues/25478", "https://github.com/rstudio/shiny-server/issues/297"},
}

// captureLimits keeps the lines about open files and no others.
func captureLimits(c *capturer) {
	nofile := func(l string) bool { return strings.Contains(l, "nofile") }
	ulimit := func(l string) bool { return strings.Contains(l, "ulimit") }
	for _, p := range limitsFiles {
		c.lines(p, nofile)
	}
	for _, dir := range limitsDirs {
		c.dirLines(dir, func(n string) bool { return strings.HasSuffix(n, ".conf") }, nofile)
	}
	for _, p := range profiles {
		c.lines(p, ulimit)
	}
	for _, dir := range profileDirs {
		c.dirLines(dir, func(n string) bool { return strings.HasSuffix(n, ".sh") }, ulimit)
	}
}

// lintLimits finds limits that are written where services do not look.
func lintLimits(t *Tree) []LintFinding {
	var out []LintFinding
	add := func(p string, n int, line, value string) {
		place := Place{p, n}
		out = append(out, LintFinding{Rule: ruleLimits, Severity: Info, Key: "limit.nofile", Value: value, Where: place.String(), Place: place, Text: shorten(line)})
	}
	for _, p := range append(limitsFiles, confFiles(t, limitsDirs, ".conf")...) {
		eachLine(t, p, func(n int, l string) {
			if i := strings.IndexByte(l, '#'); i >= 0 {
				l = l[:i]
			}
			if w := strings.Fields(l); len(w) == 4 && w[2] == "nofile" {
				add(p, n, l, w[3])
			}
		})
	}
	for _, p := range append(profiles, confFiles(t, profileDirs, ".sh")...) {
		eachLine(t, p, func(n int, l string) {
			if value, ok := ulimitFiles(l); ok {
				add(p, n, l, value)
			}
		})
	}
	return out
}

// ulimitFiles reads the number of `ulimit -HSn 102400`.
func ulimitFiles(line string) (string, bool) {
	if i := strings.IndexByte(line, '#'); i >= 0 {
		line = line[:i]
	}
	words := strings.Fields(strings.NewReplacer(";", " ", "&", " ", "|", " ").Replace(line))
	for i, w := range words {
		if w != "ulimit" {
			continue
		}
		files := false
		for _, o := range words[i+1:] {
			if strings.HasPrefix(o, "-") {
				files = files || strings.Contains(o, "n")
				continue
			}
			if files {
				return o, true
			}
			break
		}
	}
	return "", false
}
