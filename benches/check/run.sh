#!/bin/bash
# Measures `check --read-data` against the least that it has to do, which is reading, opening and hashing the same
# packs: `benches/check/run.sh SOURCE [PAIRS]`. Needs room for one backup of SOURCE below ${TMPDIR:-/tmp}.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source_folder=$(realpath "$1") pairs=${2:-5}
cd "$here/../.."
source scripts/env.sh
cargo build --quiet --release --locked --workspace --examples --bins
release=$(realpath "${CARGO_TARGET_DIR:-target}/release")
larder=${LARDER:-$release/larder}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export LARDER_KEY_FILE=$place/key XDG_CACHE_HOME=$place/cache XDG_STATE_HOME=$place/state
"$larder" -q key generate "$place/key"
"$larder" -q -r "$place/repo" init
"$larder" -q -r "$place/repo" backup "$source_folder"

# once NAME COMMAND...: notes seconds, seconds of CPU and MiB at most.
once() {
    local name=$1
    shift
    /usr/bin/time -f '%e %U %S %M' -o "$place/time" "$@" >"$place/said"
    awk '{ print $1, $2 + $3, $4 / 1024 }' "$place/time" >>"$place/$name"
}

pair() {
    once alone "$release/examples/read_open_hash" "$place/repo" "$place/key"
    once check "$larder" -r "$place/repo" check --read-data --read-only
}
pair
rm "$place/alone" "$place/check"
for _ in $(seq "$pairs"); do pair; done

# median NAME COLUMN
median() {
    cut -d' ' -f"$2" "$place/$1" | sort -g | sed -n "$(((pairs + 1) / 2))p"
}

echo "|  | reading, opening and hashing alone | check --read-data | ratio |"
echo "| --- | ---: | ---: | ---: |"
column=0
for label in "s" "s of CPU" "MiB of memory at most"; do
    column=$((column + 1))
    awk -v label="$label" -v a="$(median alone $column)" -v b="$(median check $column)" \
        'BEGIN { printf "| %s | %.2f | %.2f | %.2f |\n", label, a, b, b / a }'
done
