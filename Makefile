# `make help` lists the targets. `make test` is what a build server runs: it
# installs what it needs on a bare Debian machine with Go and makes every check.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

export PATH := $(PATH):/usr/local/go/bin
export DEBIAN_FRONTEND := noninteractive

GO           ?= go
FUZZTIME     ?= 10s
LINT_VERSION := v2.15.0
LINT         := bin/golangci-lint-$(LINT_VERSION)
PROMTOOL     := bin/promtool
NODE_MODULES := test/e2e/node_modules/.package-lock.json test/browser/node_modules/.package-lock.json

# Everything but the programs below test/, which have a target of their own.
UNIT = $$($(GO) list ./... | grep -v /test/)
# modernc.org/sqlite is about thirty times slower under the race detector: what
# stands on the store runs without its long tests there.
RACE_FULL  := ./webhook/... ./client/... ./internal/fault/... ./internal/ticket/... ./internal/delivery/... \
              ./internal/vault/... ./internal/egress/... ./internal/mail/... ./internal/filelock/... ./internal/cutover/...
RACE_SHORT := ./inbox/... ./internal/receiver/... ./internal/store/... ./internal/dispatch/... ./internal/api/... ./internal/console/... ./internal/app/... ./cmd/...

say = @printf '\n== %s\n' "$(1)"

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/ticketwire, static and stripped
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w' -o bin/ticketwire ./cmd/ticketwire

.PHONY: test
test: ## Run every check: format, vet, lint, unit, race and end-to-end tests
	@SECONDS=0
	for target in packages format build vet lint alerts unit race e2e; do
		$(MAKE) --no-print-directory "$$target" || { printf '\n== FAILED: make %s\n' "$$target"; exit 1; }
	done
	printf '\n== all checks passed in %d s\n' "$$SECONDS"

.PHONY: packages
packages: ## Install the programs the checks need (Node.js, npm, gcc, strace, PostgreSQL, PgBouncer, chromium, promtool, ...) if they are missing
	@missing=() runtimes=()
	command -v node >/dev/null || missing+=(nodejs)
	command -v npm >/dev/null || missing+=(npm)
	command -v gcc >/dev/null || missing+=(gcc libc6-dev)
	command -v strace >/dev/null || missing+=(strace)
	command -v curl >/dev/null || missing+=(curl)
	command -v jq >/dev/null || missing+=(jq)
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)
	command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
	[[ -x $(PROMTOOL) ]] || command -v promtool >/dev/null || missing+=(prometheus)
	[[ -x /usr/sbin/pgbouncer ]] || command -v pgbouncer >/dev/null || runtimes+=(pgbouncer)
	command -v python3 >/dev/null || runtimes+=(python3)
	php -m 2>/dev/null | grep -x pdo_sqlite >/dev/null || runtimes+=(php-cli php-sqlite3)
	(( $${#missing[@]} + $${#runtimes[@]} > 0 )) || exit 0
	if [[ $$(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
		[[ $${#missing[@]} -gt 0 ]] || exit 0 # make e2e says what is not tested
		echo "These programs are missing: $${missing[*]}. Install them (on Debian, as root: apt-get install $${missing[*]}) and try again." >&2
		exit 1
	fi
	apt-get update -q || [[ $${#missing[@]} -eq 0 ]]
	# The tests start a PgBouncer of their own: Debian's must not start, now or later.
	if [[ " $${runtimes[*]} " == *" pgbouncer "* && ! -e /usr/sbin/policy-rc.d ]]; then
		trap 'rm -f /usr/sbin/policy-rc.d; update-rc.d pgbouncer disable || true' EXIT
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
		chmod 755 /usr/sbin/policy-rc.d
	fi
	[[ $${#runtimes[@]} -eq 0 ]] || apt-get install -y -q --no-install-recommends "$${runtimes[@]}" || true
	[[ $${#missing[@]} -gt 0 ]] || exit 0
	# Of prometheus only the program that checks rules: the package would start a server.
	if [[ $${missing[-1]} == prometheus ]]; then
		unset 'missing[-1]'
		$(MAKE) --no-print-directory $(PROMTOOL)
	fi
	# The tests start a PostgreSQL of their own: Debian's must not start one as well.
	if [[ " $${missing[*]} " == *" postgresql "* ]]; then
		mkdir -p /etc/postgresql-common/createcluster.d
		echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/ticketwire.conf
	fi
	[[ $${#missing[@]} -eq 0 ]] || apt-get install -y -q --no-install-recommends "$${missing[@]}"

# The one on the path is taken if there is one.
$(PROMTOOL):
	@mkdir -p bin
	if have="$$(command -v promtool)"; then
		ln -sf "$$have" $@
		exit 0
	fi
	package="$$(mktemp -d)"
	trap 'rm -rf "$$package"' EXIT
	(cd "$$package" && apt-get download -q -o APT::Sandbox::User=root prometheus)
	dpkg-deb --fsys-tarfile "$$package"/prometheus_*.deb | tar -xO ./usr/bin/promtool >"$$package/promtool"
	install -m 755 "$$package/promtool" $@

.PHONY: format
format: ## Check that every Go file is in the form of gofmt
	$(call say,format)
	@wrong=$$(gofmt -l $$(find . -name '*.go' -not -path '*/node_modules/*'))
	[[ -z $$wrong ]] || { echo "not in the form of gofmt:"; echo "$$wrong"; exit 1; }

.PHONY: vet
vet: ## Run go vet
	$(call say,vet)
	@$(GO) vet ./...

.PHONY: lint
lint: $(LINT) ## Run the linters of .golangci.yml
	$(call say,lint)
	@$(LINT) run --allow-parallel-runners ./...

# Built from source, once per version: the one on the path is taken if it is the
# right one.
$(LINT):
	@mkdir -p bin
	for have in "$$(command -v golangci-lint || true)" "$$($(GO) env GOPATH)/bin/golangci-lint"; do
		if [[ -x $$have && v$$("$$have" version --short) == "$(LINT_VERSION)" ]]; then
			ln -sf "$$have" $@
			exit 0
		fi
	done
	echo "building golangci-lint $(LINT_VERSION), which takes a minute or two"
	GOBIN="$(CURDIR)/bin" $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv bin/golangci-lint $@

.PHONY: alerts
alerts: $(PROMTOOL) ## Check the alerting rules of docs/alerts.yaml and run their tests
	$(call say,alerting rules)
	@$(PROMTOOL) check rules docs/alerts.yaml
	$(PROMTOOL) test rules docs/alerts_test.yaml

.PHONY: unit
unit: ## Run the unit tests, the layout of the tree included
	$(call say,unit tests)
	@$(GO) test -timeout 12m $(UNIT)
	$(GO) test -tags failpoint ./internal/failpoint

.PHONY: race
race: ## Run the unit tests under the race detector, without the long ones
	$(call say,unit tests under the race detector)
	@CGO_ENABLED=1 $(GO) test -race -timeout 10m $(RACE_FULL)
	CGO_ENABLED=1 $(GO) test -race -short -timeout 12m $(RACE_SHORT)

.PHONY: e2e
e2e: $(NODE_MODULES) ## Run the end-to-end tests, the browser's, and the short form of the crash suite
	$(call say,end-to-end tests and crash suite)
	@for runtime in python3 php; do
		command -v "$$runtime" >/dev/null || echo "NOT TESTED: the parts of docs/receivers.md and docs/migrate.md that need $$runtime, which could not be installed" >&2
	done
	[[ -x /usr/sbin/pgbouncer ]] || command -v pgbouncer >/dev/null || echo "NOT TESTED: PostgreSQL behind PgBouncer, which could not be installed" >&2
	$(GO) test -count=1 -timeout 12m ./test/...

.PHONY: crash
crash: ## Run the crash suite with its full numbers, about a quarter of an hour
	@$(GO) test -count=1 -timeout 60m -v ./test/crash -long

$(NODE_MODULES): %/node_modules/.package-lock.json: %/package.json %/package-lock.json
	npm ci --prefix $* --no-audit --no-fund
	@touch $@

.PHONY: pictures
pictures: $(NODE_MODULES) ## Take the pictures of the console in docs/console
	@$(GO) test -count=1 -timeout 3m ./test/browser -run TestPictures -pictures "$(CURDIR)/docs/console"

.PHONY: cover
cover: ## Measure the coverage of the unit tests
	@mkdir -p coverage
	$(GO) test -coverprofile=coverage/unit.out -coverpkg=./client/...,./cmd/...,./inbox/...,./internal/...,./webhook/... $(UNIT)
	$(GO) tool cover -func=coverage/unit.out | tail -n 1

.PHONY: bench
bench: build ## Measure the whole service, BENCHFLAGS=--quick for less than a minute
	@bin/ticketwire bench $(BENCHFLAGS)

.PHONY: microbench
microbench: ## Run the benchmarks of single functions
	@$(GO) test -run '^$$' -bench . -benchmem $(UNIT)

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (10s)
	@for package in $$(grep -lr --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do
		for target in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' "$$package"/*_test.go | sed 's/^func //'); do
			echo "$$package $$target"
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package"
		done
	done

.PHONY: clean
clean: ## Remove what was built or downloaded into the tree
	rm -rf bin coverage test/e2e/node_modules test/browser/node_modules
