// Package sysctl knows the kernel settings that decide whether clients can
// connect: what each key really means (the catalogue), what it holds now (live
// values), which file on disk sets it under each loader and what will be in
// force after a reboot (provenance), which popular settings do harm (lint), and
// how one value is written and made to last (writer).
//
// Reading is separate from understanding. ReadValues and CaptureFiles acquire
// raw text, once, bounded; everything else is a pure function of what they
// returned, so a saved capture gives the same answers on another machine:
//
//	/proc/sys ──ReadValues──▶ Values ─┐
//	/etc /run /usr ──CaptureFiles──▶ Tree ──Simulate──▶ Outcome ──▶ Provenance, Prediction
//	                                  └──▶ Entry.Judge(Facts) ──▶ Judgement
//
// The loaders are modelled after their sources, systemd 252 (src/sysctl,
// src/basic/conf-files.c) and procps-ng 4.0.2 (src/sysctl.c), and held against
// the real programs by TestLoadersDifferential.
//
// What the package refuses: a key that does not exist is "not applicable" and
// never a failure; a value that merely differs from a list is not a finding;
// advice without evidence is not given; recommendations only raise.
package sysctl
