package remedy

import "errors"

// How a run can end besides success. Errors of this package wrap one of them;
// the exit code follows from it.
var (
	// ErrRefused: nothing was written (exit code 6).
	ErrRefused = errors.New("refused, nothing was changed")
	// ErrRolledBack: something failed, and everything is as it was (exit code 4).
	ErrRolledBack = errors.New("rolled back")
	// ErrLeft: a rollback left something behind, which the error lists (exit code 5).
	ErrLeft = errors.New("not rolled back completely")
	// ErrUnread: the host could not be read completely enough (exit code 3).
	ErrUnread = errors.New("the host could not be read completely enough to plan")
)
