package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hostaudit/hostaudit/audit/lab"
)

func TestMain(m *testing.M) {
	testscript.Main(inLab{m}, map[string]func(){
		"hostaudit": main,
	})
}

// inLab runs the tests in network namespaces of their own.
type inLab struct{ m *testing.M }

func (l inLab) Run() int {
	lab.Enter()
	return l.m.Run()
}

// TestScripts holds the command line: every mistake has its words and its exit
// code, every format its shape. -update rewrites what the scripts compare with.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
		},
		Setup: func(e *testscript.Env) error {
			dir, err := os.Getwd()
			if err != nil {
				return err
			}
			e.Setenv("SNAPSHOTS", dir+"/testdata/snapshot")
			e.Setenv(lab.Marker, os.Getenv(lab.Marker))
			e.Setenv("LC_ALL", "C.UTF-8")
			return nil
		},
	})
}
