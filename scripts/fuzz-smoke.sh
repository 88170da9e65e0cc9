#!/usr/bin/env bash
# Runs every fuzz target for a while, from its seeds, one on each core: scripts/fuzz-smoke.sh [SECONDS]
# Without SECONDS all of them together take ten minutes of CPU. That of whole repositories is left out: it takes many
# minutes to build and a tenth of a second to run. Its seeds are run by a test (tests/tests/all/hostile.rs).
source "$(dirname "$0")/env.sh"

scripts/fuzz-build.sh
mapfile -t targets < <(ls fuzz/targets/*.rs | grep -v /repository.rs)
export seconds=${1:-$((600 / ${#targets[@]}))}
scratch=$(mktemp -d)
export scratch
# What targets leave when they are ended; in memory if possible.
TMPDIR=$(mktemp -d -p "$fuzz_scratch_parent" larder-fuzz-XXXXXX)
export TMPDIR
trap 'rm -rf "$scratch" "$TMPDIR"' EXIT

# smoke FILE: runs the target of a file.
smoke() {
    local target log runs found seeds=()
    target=$(basename "$1" .rs)
    log=$scratch/$target.log
    mkdir -p "$scratch/$target" "fuzz/artifacts/$target"
    [ -d "fuzz/seeds/$target" ] && seeds=("fuzz/seeds/$target")
    if ! "$CARGO_TARGET_DIR/fuzz/bin/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -max_len=16384 -artifact_prefix="fuzz/artifacts/$target/" -print_final_stats=1 \
        "$scratch/$target" ${seeds[@]+"${seeds[@]}"} >"$log" 2>&1; then
        tail -n 40 "$log"
        echo "The fuzz target $target failed; its input is in fuzz/artifacts/$target/."
        return 255
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    found=$(sed -n 's/.*cov: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
    printf '%-24s %9s runs, %5s places reached\n' "$target" "$runs" "$found"
}
export -f smoke
printf '%s\0' "${targets[@]}" | xargs -0 -P "$(nproc)" -I{} bash -c 'smoke {}'
