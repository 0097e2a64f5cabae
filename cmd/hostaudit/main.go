// Command hostaudit finds out why clients cannot connect to this host: who can
// reach each port, and which rule, address, route or setting keeps the others
// out.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/remedy"
)

func main() {
	delayCollection()
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}

// run is the program without the process around it.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer, environ []string) int {
	if len(args) == 1 && args[0] == remedy.ErrandCommand {
		// No command for people: how a change runs another program.
		return remedy.RunErrand(stdin, stdout)
	}
	// A reader that goes away (hostaudit scan | head) is a write error here, not
	// the end of the program: the exit code still says what was found.
	signal.Ignore(unix.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	a := &app{ctx: ctx, stdin: stdin, stdout: stdout, stderr: stderr, environ: environ}
	err := a.command(args).ExecuteContext(ctx)
	a.complain(err)
	return exitCode(err)
}

// What a command can end with besides success. The exit code follows from it
// and from nothing else, whatever the format.
var (
	errFindings   = errors.New("findings")                                   // at or above --fail-on; for reach --from: not reachable
	errIncomplete = errors.New("the host could not be read completely")      // named in the report
	errUsage      = errors.New("the command line or configuration is wrong") // wrapped by usageError
)

func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		return 2
	case changeCode(err) != 0:
		return changeCode(err) // 4, 5, 6: fix, confirm, rollback, recover
	case errors.Is(err, errIncomplete):
		return 3
	case errors.Is(err, errFindings):
		return 1
	default:
		return 3 // an answer could not be given at all
	}
}
