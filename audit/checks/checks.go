// Package checks is the catalogue: what the audit looks for, one file a check.
//
// A check judges by evidence. What is meant to be served stands in the
// configuration (services:); without it a rule that opens a port, or a port that
// everybody knows, says for whom a listener is meant. A value that merely
// differs from a list is not a finding.
package checks

import "github.com/hostaudit/hostaudit/audit"

// All lists the checks; of equal severity what hurts most comes first.
func All() []*audit.Check {
	return append([]*audit.Check{
		ServiceNotListening,
		LoopbackOnly,
		PortBlocked,
		AddressMissing,
		InterfaceMissing,
		OneAddressOnly,
		IPv6Only,
		AudienceBlocked,
		AudienceExceeded,
		DatabaseExposed,
		QueueFull,
		QueueNearlyFull,
		OpensUnusedPort,
		FirewallDisabled,
		FilesNearLimit,
		SysctlDrift,
		SysctlLoaders,
		SysctlLint,
	}, sysctlChecks()...)
}
