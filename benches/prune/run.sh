#!/bin/bash
# Measures marking and planning, which `prune` does before anything else, and the check of the structure, which
# walks the same trees: `benches/prune/run.sh [--no-save]`.
#
# Ten million chunks in one snapshot; one million in one snapshot and in a thousand of the same tree. Needs
# 2 GB in ${TMPDIR:-/tmp} and about five minutes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
cd "$top"
source scripts/env.sh
cargo build --quiet --release --locked --workspace --example prune_scale
scale=$(realpath "${CARGO_TARGET_DIR:-target}/release/examples/prune_scale")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

# row LABEL ENTRIES SNAPSHOTS: makes the repository, then prints a line of the table.
row() {
    "$scale" make "$place/made" "$2" "$3" >&2
    # The first run fills the page cache.
    "$scale" mark "$place/made" >/dev/null
    "$scale" mark "$place/made" >"$place/mark"
    "$scale" plan "$place/made" >"$place/plan"
    "$scale" check "$place/made" >"$place/check"
    rm -rf "$place/made"
    awk -v label="$1" '
        / s$/ && FILENAME ~ /mark$/ { marking += $(NF - 1) }
        /chunks needed/ { nodes = $1 }
        /^planning/ { planning = $(NF - 1) }
        /^checking/ { checking = $(NF - 1) }
        /^memory/ { if ($(NF - 1) > most) most = $(NF - 1) }
        END { printf "| %s | %d | %.1f | %.1f | %.1f | %.0f |\n", label, nodes, marking, planning, checking, most / 1024 }
    ' "$place/mark" "$place/plan" "$place/check"
}

table() {
    echo "Marking what snapshots need, planning a prune, and checking the structure, in seconds, and the peak memory (\`benches/prune/run.sh\`):"
    echo
    echo "|  | nodes | marking, s | planning, s | checking, s | memory, MiB |"
    echo "| --- | ---: | ---: | ---: | ---: | ---: |"
    row "10,000,000 chunks, one snapshot" 10000000 1
    row "1,000,000 chunks, one snapshot" 1000000 1
    row "the same in 1,000 snapshots" 1000000 1000
}

table >"$place/table"
cat "$place/table"
[ "${1:-}" = --no-save ] || cp "$place/table" "$here/results.md"
