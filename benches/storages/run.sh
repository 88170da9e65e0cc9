#!/bin/bash
# Measures a backup to and a restore from a bucket, beside bare PUTs and GETs: `benches/storages/run.sh [options]`.
#
# Options are those of bucket.py, e.g. `--mib 2048 --latency-ms 50 --errors 0`. restic is measured too if RESTIC
# names its binary (benches/peers/run.sh fetches one).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
# shellcheck source=/dev/null
source scripts/env.sh
[ -n "${LARDER:-}" ] || make -s build >&2
cargo build --quiet --release --locked --package larder-benches --example s3_server
exec python3 "$here/bucket.py" --larder "${LARDER:-$CARGO_TARGET_DIR/release/larder}" \
    --server "$CARGO_TARGET_DIR/release/examples/s3_server" ${RESTIC:+--restic "$RESTIC"} "$@"
