# Everything here needs Go alone. A C compiler adds the race detector; nothing needs Docker.
# Written for GNU make 3.81 and later: no .ONESHELL, no != assignments.

.DEFAULT_GOAL := help

GO    ?= go
TOOLS := .tools/go.mod
PROMETHEUS := .tools/prometheus/go.mod

# Linked statically and without paths of the machine that built it; the version is
# what Go stamps from the checkout.
BUILD := CGO_ENABLED=0 $(GO) build -trimpath

# EVENTS, SEED and ARGS of `make demo`; FUZZTIME of `make fuzz`; BENCH and COUNT of `make microbench`.
EVENTS   ?=
SEED     ?=
ARGS     ?=
FUZZTIME ?= 10s
BENCH    ?= .
COUNT    ?= 6

# Prints -race where the race detector can be built. runtime/cgo is what it needs beyond Go,
# so building that is the whole question: it covers a missing compiler, missing C headers,
# CGO_ENABLED=0 and platforms without a race detector alike.
RACE_PROBE = $(GO) build -race runtime/cgo >/dev/null 2>&1 && echo -race

# The tests of cmd/usagebridge that are not built with the race detector.
UNRACED := ^TestCapacity|^TestARollingRestart|^TestAStop|^TestASnapshotOfTwentyThousand

.PHONY: help demo check test race test-cluster fuzz bench microbench torture torture-faults lint rules chart release-check reproducible sbom fmt generate verify vuln build nats-server nk deploy-check install-check clean gameday browser

help: ## show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## play billing systems, bridge and partner in one process (EVENTS=100000 SEED=1 ARGS=...)
	@$(GO) run ./cmd/usagebridge demo $(if $(EVENTS),--events $(EVENTS)) $(if $(SEED),--seed $(SEED)) $(ARGS)

# go mod tidy and verify come before vet: a wrong go.sum explains a failing build better
# than the failing build does.
check: ## formatting, modules and vet
	@unformatted=$$(gofmt -s -l cmd consumers deploy pkg schemas) || exit 1; \
	if [ -n "$$unformatted" ]; then \
		echo "not formatted; run 'make fmt':"; echo "$$unformatted"; exit 1; \
	fi
	$(GO) mod tidy -diff
	$(GO) mod verify
	$(GO) vet ./...

# Simulations of the capacity model, and tests of times under load, are about the program as it is
# built for people, which is five to ten times as fast: they have a run of their own without the
# race detector.
# The benchmarks run once so that they cannot rot, with the flags of the tests so that
# nothing is compiled twice. Generated documents are compared by the tests themselves.
test: check ## check, every test (with -race where a C compiler is found), every benchmark once
	@race=$$($(RACE_PROBE)); \
	[ -n "$$race" ] || echo "the race detector cannot be built here (it needs a C compiler and cgo): testing without it"; \
	set -x; \
	$(GO) test $$race -shuffle=on -timeout 20m ./... && \
	$(GO) test -shuffle=on -timeout 10m -run '$(UNRACED)' ./cmd/usagebridge && \
	$(GO) test $$race -vet=off -timeout 10m -run '^$$' -bench . -benchtime 1x ./...

race: ## every test with the race detector; fails without a C compiler
	$(GO) test -race -shuffle=on -timeout 10m ./...

# Not part of `make test`, which runs there what matters most: each of these tests waits for
# the elections of a new set of streams.
test-cluster: ## the tests of the store on a real cluster: three nats-servers, TLS, three replicas
	TEST_CLUSTER=1 $(GO) test -count=1 -timeout 20m ./pkg/broker ./pkg/broker/natstest ./pkg/publisher

fuzz: ## every fuzz target in turn (FUZZTIME=10s each)
	@list=$$($(GO) test -list '^Fuzz' ./...) || { echo "$$list"; exit 1; }; \
	targets=$$(echo "$$list" | awk '/^Fuzz/ { name[++n] = $$1 } /^ok/ { for (i = 1; i <= n; i++) print $$2 ":" name[i]; n = 0 }'); \
	[ -n "$$targets" ] || { echo "no fuzz target found"; exit 1; }; \
	for target in $$targets; do \
		echo "$(GO) test -run ^$$ -fuzz ^$${target##*:}$$ -fuzztime $(FUZZTIME) $${target%:*}"; \
		$(GO) test -run '^$$' -fuzz "^$${target##*:}\$$" -fuzztime $(FUZZTIME) "$${target%:*}" || exit 1; \
	done

bench: ## what this machine can do, against what NATS and HTTP alone can: one table (ARGS=--scale=0.1)
	@$(GO) run ./cmd/usagebridge bench $(ARGS)

microbench: ## the benchmarks of single functions, for benchstat (BENCH=. COUNT=6)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) ./...

# NODES servers, 1 or 3. It begins with SEED and goes on with the next numbers, for MINUTES or
# for RUNS; the first violation ends it.
torture: ## schedules of faults against real processes (SEED=1 MINUTES=1 NODES=1 RUNS=)
	@$(GO) run ./cmd/torture $(if $(SEED),-seed $(SEED)) $(if $(MINUTES),-minutes $(MINUTES)) $(if $(NODES),-nodes $(NODES)) $(if $(RUNS),-runs $(RUNS)) $(ARGS)

torture-faults: ## that torture finds the faults that are planted into the program
	$(GO) test -tags torturefaults -run 'TestEveryPlantedFaultIsFound' -timeout 30m -parallel 2 -v ./cmd/torture

# Not part of verify: it takes ten minutes and a Prometheus, which no Go module brings.
gameday: ## every alert provoked for real; needs a Prometheus (ARGS=-prometheus=PATH)
	@$(GO) run ./cmd/gameday $(ARGS)

lint: ## golangci-lint as pinned in .tools (the first run builds it: minutes)
	$(GO) tool -modfile=$(TOOLS) golangci-lint config verify
	$(GO) tool -modfile=$(TOOLS) golangci-lint run ./...

# A module of its own: what Prometheus needs would double what lint has to build.
rules: ## alerts: syntax, lint and unit tests (the first run builds promtool: minutes)
	$(GO) tool -modfile=$(PROMETHEUS) promtool check rules --lint=all --lint-fatal deploy/prometheus/usagebridge.rules.yaml
	$(GO) tool -modfile=$(PROMETHEUS) promtool test rules deploy/prometheus/*.test.yaml

chart: ## the Helm chart: lint, render, and check what comes out (the first run builds helm: minutes)
	$(GO) test -C .tools/kubernetes ./...
	GO=$(GO) .tools/kubernetes/check.sh

# What it reads lies outside of its module, where Go does not see that a cached result is old.
release-check: ## that .goreleaser.yaml is right: decoded as goreleaser does, and checked
	$(GO) test -C .tools/release -count=1 ./...

reproducible: ## that two builds of the last commit, in two directories, are the same bytes (minutes)
	GO=$(GO) .tools/release/reproducible.sh

sbom: build ## the modules in bin/usagebridge, as CycloneDX, into bin/usagebridge.cdx.json
	$(GO) run -C .tools/release . sbom $(CURDIR)/bin/usagebridge $(CURDIR)/bin/usagebridge.cdx.json

# Not part of test, which needs Go alone.
browser: ## onboarding as the README has it, with a headless Chromium (CHROMIUM=PATH) as the person
	cd .tools/browser && $(GO) vet ./... && $(GO) test -count=1 ./...

fmt: ## format and group imports as lint wants them
	$(GO) tool -modfile=$(TOOLS) golangci-lint fmt ./...

generate: ## write the generated documents anew
	$(GO) generate ./...

verify: test lint rules vuln deploy-check chart release-check reproducible browser ## what a release needs: test, lint, rules, vuln, deploy-check, chart, release-check, reproducible, browser

# Not part of .ci/run: it asks a database on the internet and fails without it.
vuln: ## known vulnerabilities in the code we call (asks vuln.go.dev)
	$(GO) tool -modfile=$(TOOLS) govulncheck ./...

# Without a container engine. The units are looked at where systemd-analyze is installed.
deploy-check: ## docker-compose.yml, the Dockerfile, .dockerignore and the systemd units against our rules
	cd .tools/deploy && $(GO) vet ./... && $(GO) test ./... && $(GO) run . ../..

# Not part of verify: it needs root, on a Linux machine with systemd and openssl. It starts a systemd
# of its own in namespaces of its own, and changes nothing outside of them.
install-check: ## run every command of deploy/install.md and deploy/backup.md
	deploy/install_test.sh

build: ## the binary, into bin/
	$(BUILD) -o bin/usagebridge ./cmd/usagebridge

nats-server: ## nats-server as this module pins it, into bin/
	$(BUILD) -o bin/nats-server github.com/nats-io/nats-server/v2

nk: ## nk, which makes nkeys, as this module pins it, into bin/
	$(BUILD) -o bin/nk github.com/nats-io/nkeys/nk

clean: ## remove what build and bench leave
	rm -rf bin dist
	rm -f cover.* *.out *.prof *.test
