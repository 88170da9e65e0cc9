#!/usr/bin/env bash
# Runs the Rust tests of the workspace (not the doc tests): with nextest where it is, else with cargo.
# With the argument --no-run it builds them only.
source "$(dirname "$0")/env.sh"

# The tests from the outside run the program that lies beside them.
cargo build --quiet --release --locked --package larder --bin larder

if ! command -v cargo-nextest >/dev/null; then
    exec cargo test --quiet --release --locked --workspace --lib --bins --tests --no-fail-fast "$@" -- --skip heavy::
fi
[ "${1:-}" = --no-run ] || set -- --no-fail-fast --no-tests=pass --status-level=fail --final-status-level=slow "$@"
exec cargo nextest run --cargo-quiet --release --locked --workspace "$@"
