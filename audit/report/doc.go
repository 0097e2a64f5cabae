// Package report renders what the audit found: text for people, JSON for
// programs, and the forms other tools read (SARIF, JUnit, Prometheus, Nagios).
//
// Text that came from the host (names of processes, units, interfaces, comments
// of rules, lines of files) is hostile. The model keeps its bytes; the text
// renderings escape them at one place, clean. Nothing here reads the host, the
// clock or the environment.
package report
