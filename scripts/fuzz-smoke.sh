#!/usr/bin/env bash
# Runs every fuzz target for a few seconds, from its seeds: scripts/fuzz-smoke.sh [SECONDS]
source "$(dirname "$0")/env.sh"
seconds=${1:-3}

scripts/fuzz-build.sh
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for file in fuzz/targets/*.rs; do
    target=$(basename "$file" .rs)
    mkdir -p "$scratch/$target" "fuzz/artifacts/$target"
    seeds=()
    [ -d "fuzz/seeds/$target" ] && seeds=("fuzz/seeds/$target")
    if ! "$CARGO_TARGET_DIR/fuzz/bin/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -max_len=16384 -artifact_prefix="fuzz/artifacts/$target/" -print_final_stats=1 \
        "$scratch/$target" ${seeds[@]+"${seeds[@]}"} >"$scratch/log" 2>&1; then
        tail -n 40 "$scratch/log"
        echo "The fuzz target $target failed; its input is in fuzz/artifacts/$target/."
        exit 1
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$scratch/log")
    found=$(sed -n 's/.*cov: \([0-9]*\).*/\1/p' "$scratch/log" | tail -n 1)
    printf '%-24s %9s runs, %5s places reached\n' "$target" "$runs" "$found"
done
