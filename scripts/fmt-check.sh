#!/usr/bin/env bash
# Checks the format of all code, that of the packages outside the workspace too.
source "$(dirname "$0")/env.sh"

cargo fmt --all --check
for manifest in fuzz/Cargo.toml tests/no-std-probe/Cargo.toml; do
    cargo fmt --manifest-path "$manifest" --check
done
