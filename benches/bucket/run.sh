#!/bin/bash
# Measures a bucket of a million small objects as source and target: `benches/bucket/run.sh [options]`.
#
# Options are those of measure.py, e.g. `--objects 100000`. Needs 7 GB in /dev/shm (--scratch is another place).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
# shellcheck source=/dev/null
source scripts/env.sh
cargo build --quiet --release --locked --workspace --bins --examples
release=$CARGO_TARGET_DIR/release
exec python3 "$here/measure.py" --larder "${LARDER:-$release/larder}" --server "$release/examples/s3_server" \
    --bare "$release/examples/bare_bucket" "$@"
