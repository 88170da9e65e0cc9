# The commands of this project; each is a script in scripts/ or one line of cargo.
#
#   make demo    a first look: builds larder, backs this source tree up, restores and checks it
#   make test    everything that CI runs but test-storages
#
# Both install what is missing (Debian packages, RocksDB built once) and say so when it takes long.

SHELL := /bin/bash
env := source scripts/env.sh &&

.PHONY: demo test test-storages test-page test-api setup build fmt clippy doc unit deny no-std fuzz fuzz-smoke python golden-check round-trip bench clean help

demo:          ## A first look at larder, in a temporary folder
	@scripts/demo.sh

test:          ## Everything that CI runs
	@scripts/test.sh

test-storages: ## The storages against servers that take long to install (Ceph, Azurite, s3rver, rclone)
	@scripts/test-storages.sh

test-page:     ## The web page in Chromium against the service (installs Chromium, builds first)
	@scripts/build.sh && scripts/page-tests.sh browser

test-api:      ## The HTTP API, fuzzed by its own OpenAPI document (EXAMPLES=6; builds first)
	@scripts/build.sh && scripts/api-tests.sh $(EXAMPLES)

setup:         ## Install what is missing
	@scripts/setup.sh all

build:         ## Build the larder binary and say where it is
	@scripts/build.sh

fmt:           ## Format the code
	@$(env) cargo fmt --all && cargo fmt --manifest-path fuzz/Cargo.toml && cargo fmt --manifest-path tests/no-std-probe/Cargo.toml

clippy:        ## Lint, warnings denied
	@$(env) cargo clippy --release --locked --workspace --all-targets -- -D warnings

doc:           ## Build the documentation, warnings denied
	@$(env) RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps

unit:          ## The Rust tests alone
	@scripts/cargo-test.sh

deny:          ## Licences, sources, bans and advisories of the dependencies
	@scripts/deny.sh && { scripts/advisories.sh || [ $$? -eq 77 ]; }

no-std:        ## Prove that larder-format links no std
	@tests/no-std-probe/run.sh

fuzz-smoke:    ## Every fuzz target for a while, ten minutes of CPU in all
	@scripts/fuzz-smoke.sh

fuzz:          ## All fuzz targets in turn for a day (SECONDS=86400), their corpora kept and made small
	@scripts/fuzz-all.sh $(SECONDS)

python:        ## The reference reader and its tests
	@scripts/python-tests.sh

golden-check:  ## The golden repository, read by the reference reader
	@scripts/golden-check.sh

round-trip:    ## Back up, restore and compare /usr and a tree of every awkward file
	@scripts/round-trip.sh

bench:         ## Benchmarks of the parts (criterion)
	@$(env) cargo bench --locked -p larder-benches

clean:         ## Remove what cargo built (RocksDB and the tools stay)
	@$(env) cargo clean

help:          ## This list
	@sed -n 's/^\([a-z-]*\): *## /\1\t/p' Makefile | expand -t 15
