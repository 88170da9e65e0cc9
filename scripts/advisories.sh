#!/usr/bin/env bash
# Looks the dependencies up in the RustSec database; exits with 77 (skipped) where it cannot be reached.
source "$(dirname "$0")/env.sh"

if ! timeout 60 "$cargo_deny" --log-level off fetch db >/dev/null 2>&1; then
    echo "The advisory database (github.com/rustsec/advisory-db) cannot be reached from here."
    exit 77
fi
"$cargo_deny" --log-level error --locked check --disable-fetch --hide-inclusion-graph advisories
