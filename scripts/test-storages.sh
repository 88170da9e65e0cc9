#!/usr/bin/env bash
# Runs the tests of storages against the servers that take long to install.
source "$(dirname "$0")/env.sh"
scripts/setup.sh build
scripts/servers.sh all
source scripts/env.sh

if command -v cargo-nextest >/dev/null; then
    exec cargo nextest run --cargo-quiet --release --locked --no-fail-fast --workspace \
        --ignore-default-filter -E 'test(/(^|::)heavy::/)' "$@"
fi
exec cargo test --quiet --release --locked --no-fail-fast --workspace --test all "$@" heavy::
