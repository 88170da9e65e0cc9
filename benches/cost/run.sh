#!/bin/bash
# Measures what a feature costs a first backup: `benches/cost/run.sh parity|verification SOURCE [PAIRS]`.
#
#   parity        parity of 5 % against none
#   verification  opening and comparing each block before it is uploaded (the default) against not doing so
#
# Backs SOURCE up into fresh repositories with it and without, taking turns, and prints the medians and their
# ratio. Repositories, caches and the packs of open groups are below ${TMPDIR:-/tmp}: room for twice what a backup
# stores, and 1 GiB.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
what=$1 source_folder=$(realpath "$2") pairs=${3:-5}
case $what in
    parity) init_with=(--parity 5) backup_without=() ;;
    verification) init_with=() backup_without=(--no-verify-blocks) ;;
    *) echo "parity or verification, not $what" >&2; exit 1 ;;
esac
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

# once with|without: notes seconds, seconds of CPU, MiB at most, and MiB in the repository.
once() {
    rm -rf "$place/repo" "$place/cache" "$place/state"
    local init=() backup=()
    case $1 in
        with) init=("${init_with[@]}") ;;
        without) backup=("${backup_without[@]}") ;;
    esac
    "$larder" -q -r "$place/repo" init "${init[@]}"
    /usr/bin/time -f '%e %U %S %M' -o "$place/time" \
        "$larder" -q -r "$place/repo" backup "${backup[@]}" "$source_folder"
    awk -v bytes="$(du -sb "$place/repo" | cut -f1)" \
        '{ print $1, $2 + $3, $4 / 1024, bytes / 1048576 }' "$place/time" >>"$place/$1"
}

once without
rm "$place/without"
for _ in $(seq "$pairs"); do
    once without
    once with
done

# median NAME COLUMN
median() {
    cut -d' ' -f"$2" "$place/$1" | sort -g | sed -n "$(((pairs + 1) / 2))p"
}

echo "|  | without | with | ratio |"
echo "| --- | ---: | ---: | ---: |"
column=0
for label in "first backup, s" "first backup, s of CPU" "MiB of memory at most" "MiB in the repository"; do
    column=$((column + 1))
    awk -v label="$label" -v a="$(median without $column)" -v b="$(median with $column)" \
        'BEGIN { printf "| %s | %.1f | %.1f | %.2f |\n", label, a, b, b / a }'
done
