# make scan: audit this machine. make test: install what the tests need, run them all.

GO          ?= go
# Flags for `make test`, for example TESTFLAGS=-race.
TESTFLAGS   ?=
TESTTIMEOUT ?= 60m
# Arguments for `make scan`, for example ARGS='--format json'.
ARGS        ?=
# How long `make conformance` and each target of `make fuzz` run.
FOR         ?= 10m
FUZZTIME    ?= 10s
# `make bench`: every size divided by SCALE, REPEAT turns, and flags of packaging/bench.
export SCALE  ?= 1
export REPEAT ?= 5
BENCHFLAGS  ?=

# Git may refuse a checkout of another owner; the build need not fail for that.
STAMP := $(shell git rev-parse HEAD >/dev/null 2>&1 || echo -buildvcs=false)

export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.PHONY: help build scan test lint bench packages conformance fuzz clean

help:
	@echo 'make scan         build hostaudit and audit this machine (needs Go; as root it sees everything)'
	@echo 'make test         install what the tests need where it is missing (as root), run every test'
	@echo 'make lint         gofmt, go vet, go mod tidy, scripts, golangci-lint (built by Go on first use)'
	@echo 'make bench        hold the speed against its gates, in namespaces filled for it; as root; SCALE=10'
	@echo 'make packages     deb and rpm for amd64 and arm64 into dist/'
	@echo 'make conformance  random rulesets against the kernel, FOR=10m'
	@echo 'make fuzz         every fuzz target, FUZZTIME=10s each'

build:
	@mkdir -p dist
	@CGO_ENABLED=0 $(GO) build $(STAMP) -trimpath -o dist/hostaudit ./cmd/hostaudit

scan: build
	@packaging/dev/scan dist/hostaudit $(ARGS)

test:
	@packaging/dev/install-test-deps
	$(GO) test -timeout $(TESTTIMEOUT) $(TESTFLAGS) ./...

lint:
	@packaging/dev/lint

bench:
	@packaging/dev/bench $(BENCHFLAGS)

packages:
	@packaging/dev/packages

conformance:
	@packaging/dev/install-test-deps
	$(GO) test -count=1 -timeout 0 -run '^TestDifferential$$' -v ./audit/reach -for $(FOR)

fuzz:
	@packaging/dev/fuzz $(FUZZTIME)

clean:
	rm -rf dist
