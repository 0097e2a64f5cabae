// Command bench measures hostaudit against what an operator would type instead,
// and holds the ratios against ceilings.
//
//	bench [-hostaudit FILE] [-load FILE] [-scale N] [-repeat N] [-only REGEXP] [-skip REGEXP]
//
// Each scene is a network namespace of its own that listeners/load fills: up to
// a million sockets in TIME_WAIT, 10,000 processes, 50,000 rules; -scale 10
// makes everything a tenth as big. Ours and theirs take turns in the same scene,
// at least five times each, and medians are compared: milliseconds differ from
// machine to machine, ratios hardly do. Before it is timed, every reading is
// held against what was made, so that nothing is fast because it read nothing.
//
// It prints a table. It ends with 0 where every gate passed, 1 where one was
// missed, 2 where one could not be measured. Nothing outside the namespaces is
// changed; it needs root.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// settings are those of one run, for every scene of it.
type settings struct {
	Hostaudit string
	Load      string
	Scale     int
	Repeat    int
	Only      string
	Skip      string
}

func main() {
	runtime.LockOSThread() // children die with the thread that made them
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		code = 2
	}
	os.Exit(code)
}

func run() (int, error) {
	// A command to be measured: see exec.go.
	if len(os.Args) > 2 && os.Args[1] == execRole {
		return 0, measureHere(os.Args[2:])
	}
	var s settings
	flag.StringVar(&s.Hostaudit, "hostaudit", "dist/hostaudit", "the `FILE` to measure")
	flag.StringVar(&s.Load, "load", "dist/load", "the load generator, `FILE`")
	flag.IntVar(&s.Scale, "scale", 1, "divide every size by `N`")
	flag.IntVar(&s.Repeat, "repeat", 5, "how often each side is measured, at least five times for a gate")
	flag.StringVar(&s.Only, "only", "", "measure only the scenes whose name matches `REGEXP`")
	flag.StringVar(&s.Skip, "skip", "^$", "leave out the scenes whose name matches `REGEXP`")
	scene := flag.String("scene", "", "measure this scene, in the namespace we are in (used internally)")
	flag.Parse()
	switch {
	case flag.NArg() > 0:
		return 0, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case s.Scale < 1 || s.Repeat < 1:
		return 0, errors.New("-scale and -repeat begin at 1")
	}
	if *scene != "" {
		return 0, measureScene(s, *scene)
	}
	if os.Geteuid() != 0 {
		return 0, errors.New("needs root: it makes network namespaces and loads rules into them")
	}
	only, err := regexp.Compile(s.Only)
	if err != nil {
		return 0, fmt.Errorf("-only: %w", err)
	}
	skip, err := regexp.Compile(s.Skip)
	if err != nil {
		return 0, fmt.Errorf("-skip: %w", err)
	}
	for _, file := range []*string{&s.Hostaudit, &s.Load} {
		if *file, err = filepath.Abs(*file); err != nil {
			return 0, err
		}
		if _, err := os.Stat(*file); err != nil {
			return 0, fmt.Errorf("%w (make bench builds it)", err)
		}
	}
	var results []result
	for _, sc := range scenes {
		if !only.MatchString(sc.name) || skip.MatchString(sc.name) {
			continue
		}
		begin := time.Now()
		size := ""
		if s.Scale > 1 && !sc.size.fixed {
			size = fmt.Sprintf(", a %dth of it", s.Scale)
		}
		fmt.Fprintf(os.Stderr, "bench: %s%s …\n", sc.title, size)
		got, err := outside(s, sc)
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", sc.title, err)
		}
		for _, g := range sc.gates {
			r := result{Gate: g.id, Failed: "not measured"}
			if err != nil {
				r.Failed = err.Error()
			}
			if i := slices.IndexFunc(got, func(r result) bool { return r.Gate == g.id }); i >= 0 {
				r = got[i]
			}
			results = append(results, r)
		}
		fmt.Fprintf(os.Stderr, "bench: … %.0f s\n", time.Since(begin).Seconds())
	}
	printTable(os.Stdout, s, results)
	return verdict(s, results), nil
}

// outside runs a scene as a process of its own inside the namespace that the
// load generator makes, and gives what it measured.
func outside(s settings, sc scene) ([]result, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	file, err := os.CreateTemp("", "bench-*.json")
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	args := append(sc.size.args(s.Scale), "--", self, "-scene", sc.name, "-hostaudit", s.Hostaudit, "-load", s.Load,
		"-scale", fmt.Sprint(s.Scale), "-repeat", fmt.Sprint(s.Repeat))
	cmd := exec.Command(s.Load, args...)
	cmd.Env = append(os.Environ(), resultsVar+"="+file.Name(), "LC_ALL=C.UTF-8",
		"PATH="+strings.Join([]string{os.Getenv("PATH"), "/usr/local/sbin", "/usr/sbin", "/sbin"}, ":"))
	cmd.Stderr = os.Stderr
	// Ended or interrupted, this leaves no host of ten thousand processes behind:
	// the scene dies with this thread, which the caller keeps.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runErr := cmd.Run()
	var results []result
	if err := json.NewDecoder(file).Decode(&results); err != nil {
		return nil, errors.Join(runErr, fmt.Errorf("no results: %w", err))
	}
	return results, runErr
}
