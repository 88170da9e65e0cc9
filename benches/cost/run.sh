#!/bin/bash
# Measures what parity costs a first backup: `benches/parity/run.sh SOURCE [PERCENT] [PAIRS]`.
#
# Backs SOURCE up into fresh repositories with parity and without, taking turns, and prints the medians and their
# ratio. Repositories, caches and the packs of open groups are below ${TMPDIR:-/tmp}: room for twice what a backup
# stores, and 1 GiB.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source_folder=$(realpath "$1") percent=${2:-5} pairs=${3:-3}
cd "$here/../.."
source scripts/env.sh
larder=${LARDER:-}
if [ -z "$larder" ]; then
    cargo build --quiet --release --locked --workspace
    larder=$(realpath "${CARGO_TARGET_DIR:-target}/release/larder")
fi
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export LARDER_PASSWORD=bench XDG_CACHE_HOME=$place/cache XDG_STATE_HOME=$place/state

# once NAME OPTIONS...: prints seconds, seconds of CPU, MiB at most, and MiB in the repository.
once() {
    local name=$1
    shift
    rm -rf "$place/repo" "$place/cache" "$place/state"
    "$larder" -q -r "$place/repo" init "$@"
    /usr/bin/time -f '%e %U %S %M' -o "$place/time" "$larder" -q -r "$place/repo" backup "$source_folder"
    awk -v bytes="$(du -sb "$place/repo" | cut -f1)" \
        '{ print $1, $2 + $3, $4 / 1024, bytes / 1048576 }' "$place/time" >>"$place/$name"
}

once warm
for _ in $(seq "$pairs"); do
    once without
    once with --parity "$percent"
done

# median NAME COLUMN
median() {
    cut -d' ' -f"$2" "$place/$1" | sort -g | sed -n "$(((pairs + 1) / 2))p"
}

echo "|  | without | parity of $percent % | ratio |"
echo "| --- | ---: | ---: | ---: |"
column=0
for label in "first backup, s" "first backup, s of CPU" "MiB of memory at most" "MiB in the repository"; do
    column=$((column + 1))
    awk -v label="$label" -v a="$(median without $column)" -v b="$(median with $column)" \
        'BEGIN { printf "| %s | %.1f | %.1f | %.2f |\n", label, a, b, b / a }'
done
