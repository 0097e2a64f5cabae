package main

import (
	"bytes"
	"flag"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the expected outputs of the scripts")

// exits runs the program in this process and compares its exit code:
// exits CODE ARGS…; what it wrote is then stdout and stderr of the script, in the
// files of that name.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: exits CODE ARGS…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	environ := []string{"LC_ALL=" + ts.Getenv("LC_ALL")}
	for _, name := range []string{"NO_COLOR", "HOSTAUDIT_CONFIG", "HOSTAUDIT_FORMAT", "HOSTAUDIT_FROMAT", "HOSTAUDIT_SERVICES", "HOSTAUDIT_WIDTH"} {
		if v := ts.Getenv(name); v != "" {
			environ = append(environ, name+"="+v)
		}
	}
	for i, a := range args {
		if i > 0 && len(a) > 2 && a[0] == '@' { // @FILE: a file of the script
			args[i] = ts.MkAbs(a[1:])
		}
	}
	var out, errs bytes.Buffer
	var in bytes.Buffer
	if ts.Getenv("STDIN") != "" {
		in.WriteString(ts.ReadFile(ts.Getenv("STDIN")))
	}
	got := run(args[1:], &in, &out, &errs, environ)
	ts.Check(writeFile(ts.MkAbs("out"), out.Bytes()))
	ts.Check(writeFile(ts.MkAbs("err"), errs.Bytes()))
	ts.Check(holdToSchema(args[1:], out.String()))
	if got != want {
		ts.Fatalf("exit code %d, want %d\nstdout:\n%s\nstderr:\n%s", got, want, out.String(), errs.String())
	}
}
