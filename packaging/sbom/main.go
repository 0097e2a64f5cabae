// Command sbom says what a binary is made of: a CycloneDX document with the
// modules that the binary itself names (debug/buildinfo), and one text with the
// licences of exactly these modules. It reads the module cache of the go command.
//
//	sbom -sbom FILE -notices FILE BINARY
package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	sbom := flag.String("sbom", "", "write the SBOM to `FILE`")
	notices := flag.String("notices", "", "write the licence texts to `FILE`")
	version := flag.String("version", "", "version of the binary")
	flag.Parse()
	if err := run(flag.Arg(0), *sbom, *notices, *version); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(binary, sbom, notices, version string) error {
	if binary == "" || sbom == "" || notices == "" {
		return errors.New("usage: sbom -sbom FILE -notices FILE BINARY")
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("read %s: %w", binary, err)
	}
	parts, err := partsOf(info)
	if err != nil {
		return err
	}
	doc, err := document(info, parts, version)
	if err != nil {
		return err
	}
	if err := os.WriteFile(sbom, doc, 0o644); err != nil {
		return err
	}
	return os.WriteFile(notices, texts(parts), 0o644)
}

// part is one module that is linked in, or the standard library.
type part struct {
	path, version, sum string
	licences           []licence
}

// licence is one licence file.
type licence struct {
	file, id string
	text     []byte
}

func partsOf(info *buildinfo.BuildInfo) ([]part, error) {
	goroot, err := goOutput("env", "GOROOT")
	if err != nil {
		return nil, err
	}
	std := part{path: "std", version: info.GoVersion}
	if std.licences, err = licencesIn(strings.TrimSpace(string(goroot))); err != nil {
		return nil, err
	}
	parts := []part{std}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		p := part{path: m.Path, version: m.Version, sum: m.Sum}
		dir, err := moduleDir(m)
		if err != nil {
			return nil, err
		}
		if p.licences, err = licencesIn(dir); err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	slices.SortFunc(parts, func(a, b part) int { return strings.Compare(a.path, b.path) })
	return parts, nil
}

func goOutput(args ...string) ([]byte, error) {
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

func moduleDir(m *debug.Module) (string, error) {
	out, err := goOutput("mod", "download", "-json", m.Path+"@"+m.Version)
	if err != nil {
		return "", err
	}
	var at struct{ Dir, Sum string }
	if err := json.Unmarshal(out, &at); err != nil {
		return "", fmt.Errorf("go mod download %s: %w", m.Path, err)
	}
	if at.Dir == "" || at.Sum != m.Sum {
		return "", fmt.Errorf("%s %s: the module cache holds sum %q, the binary names %q", m.Path, m.Version, at.Sum, m.Sum)
	}
	return at.Dir, nil
}

var licenceName = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([-.].*)?$`)

// licencesIn finds the licence texts at the top of a module; none is an error.
func licencesIn(dir string) ([]licence, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []licence
	known := false
	for _, e := range entries {
		if !e.Type().IsRegular() || !licenceName.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		id := identify(text)
		known = known || id != ""
		all = append(all, licence{e.Name(), id, text})
	}
	if !known {
		return nil, fmt.Errorf("%s: found no licence that is known", dir)
	}
	return all, nil
}

// identify names the licence of a text by its SPDX identifier, "" where it is none
// of those that Go modules use.
func identify(text []byte) string {
	s := strings.Join(strings.Fields(string(text)), " ")
	has := func(part string) bool { return strings.Contains(s, part) }
	switch {
	case has("Apache License") && has("Version 2.0"):
		return "Apache-2.0"
	case has("Mozilla Public License") && has("2.0"):
		return "MPL-2.0"
	case has("Permission is hereby granted, free of charge"):
		return "MIT"
	case has("Permission to use, copy, modify, and/or distribute this software"), has("Permission to use, copy, modify, and distribute this software"):
		return "ISC"
	case has("This is free and unencumbered software released into the public domain"):
		return "Unlicense"
	case has("Redistribution and use in source and binary forms"):
		if has("Neither the name") || has("names of its contributors") {
			return "BSD-3-Clause"
		}
		return "BSD-2-Clause"
	}
	return ""
}

// texts puts all licences into one file, modules in order.
func texts(parts []part) []byte {
	var b bytes.Buffer
	b.WriteString("The program hostaudit is linked with these modules. Their licences follow.\n\n")
	for _, p := range parts {
		for _, l := range p.licences {
			fmt.Fprintf(&b, "%s\n%s %s: %s\n\n%s\n\n", strings.Repeat("=", 76), p.path, p.version, l.file, bytes.TrimSpace(l.text))
		}
	}
	return b.Bytes()
}

type component struct {
	Type       string          `json:"type"`
	Ref        string          `json:"bom-ref"`
	Name       string          `json:"name"`
	Version    string          `json:"version"`
	PURL       string          `json:"purl"`
	Licenses   []licenceChoice `json:"licenses,omitempty"`
	Properties []property      `json:"properties,omitempty"`
}

type licenceChoice struct {
	License struct {
		ID string `json:"id"`
	} `json:"license"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// document is the SBOM in the form of CycloneDX 1.6. Equal binaries give equal
// documents: no serial number, and the time is SOURCE_DATE_EPOCH.
func document(info *buildinfo.BuildInfo, parts []part, version string) ([]byte, error) {
	when := time.Unix(0, 0)
	if s := os.Getenv("SOURCE_DATE_EPOCH"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		when = time.Unix(n, 0)
	}
	main := component{Type: "application", Ref: "pkg:golang/" + info.Main.Path, Name: "hostaudit", Version: version,
		PURL: "pkg:golang/" + info.Main.Path + "@" + url.PathEscape(version), Licenses: choices([]licence{{id: "Apache-2.0"}})}
	for _, s := range info.Settings {
		if s.Key == "GOARCH" || s.Key == "GOOS" || s.Key == "CGO_ENABLED" {
			main.Properties = append(main.Properties, property{"go:" + s.Key, s.Value})
		}
	}
	components, refs := []component{}, []string{}
	for _, p := range parts {
		c := component{Type: "library", Name: p.path, Version: p.version, PURL: "pkg:golang/" + p.path + "@" + url.PathEscape(p.version), Licenses: choices(p.licences)}
		c.Ref = c.PURL
		if p.sum != "" {
			c.Properties = []property{{"go:sum", p.sum}}
		}
		components, refs = append(components, c), append(refs, c.Ref)
	}
	out, err := json.MarshalIndent(map[string]any{
		"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
		"metadata":     map[string]any{"timestamp": when.UTC().Format(time.RFC3339), "component": main},
		"components":   components,
		"dependencies": []map[string]any{{"ref": main.Ref, "dependsOn": refs}},
	}, "", "  ")
	return append(out, '\n'), err
}

func choices(licences []licence) []licenceChoice {
	var out []licenceChoice
	seen := map[string]bool{}
	for _, l := range licences {
		if l.id == "" || seen[l.id] {
			continue
		}
		seen[l.id] = true
		var c licenceChoice
		c.License.ID = l.id
		out = append(out, c)
	}
	return out
}
