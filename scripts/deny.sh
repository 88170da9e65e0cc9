#!/usr/bin/env bash
# Holds the dependencies against deny.toml: licences, sources, bans.
source "$(dirname "$0")/env.sh"

"$cargo_deny" --log-level error --locked check --hide-inclusion-graph licenses sources bans
for manifest in fuzz/Cargo.toml tests/no-std-probe/Cargo.toml; do
    if [ -f "$manifest" ]; then
        "$cargo_deny" --log-level error --locked --manifest-path "$manifest" --config deny.toml check sources bans
    fi
done
