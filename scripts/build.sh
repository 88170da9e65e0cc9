#!/usr/bin/env bash
# Builds the larder binary, after installing what is missing, and prints where it is.
source "$(dirname "$0")/env.sh"

scripts/setup.sh build
source scripts/env.sh
[ -x "$CARGO_TARGET_DIR/release/larder" ] || echo "Building larder; the first time this takes a few minutes."
cargo build --quiet --release --locked --package larder --bin larder
echo "$CARGO_TARGET_DIR/release/larder"
