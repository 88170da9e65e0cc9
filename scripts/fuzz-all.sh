#!/usr/bin/env bash
# Fuzzes all targets in turn, for a day or so many seconds in all: scripts/fuzz-all.sh [SECONDS]
# That of whole repositories has eight times as long as one of the others.
# What is found new is kept in fuzz/corpus/TARGET, made small again after each turn; what fails is in fuzz/artifacts/TARGET.
source "$(dirname "$0")/env.sh"

seconds=${1:-86400}
scripts/fuzz-build.sh --features repository
targets=(fuzz/targets/*.rs)
share=$((seconds / (${#targets[@]} + 7)))
[ "$share" -gt 0 ] || { echo "$seconds seconds are too few for ${#targets[@]} targets" >&2; exit 1; }
TMPDIR=$(mktemp -d -p "$fuzz_scratch_parent" larder-fuzz-XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
failed=()
for file in "${targets[@]}"; do
    target=$(basename "$file" .rs)
    binary=$CARGO_TARGET_DIR/fuzz/bin/$target
    corpus=fuzz/corpus/$target
    mkdir -p "$corpus" "fuzz/artifacts/$target" "fuzz/seeds/$target"
    turn=$share more=()
    [ "$target" = repository ] && turn=$((share * 8)) more=(-len_control=0)
    echo "== $target, $turn s"
    "$binary" -max_total_time="$turn" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        ${more[@]+"${more[@]}"} -artifact_prefix="fuzz/artifacts/$target/" "$corpus" "fuzz/seeds/$target" || failed+=("$target")
    rm -rf "$corpus.small"
    mkdir "$corpus.small"
    "$binary" -merge=1 -timeout=10 -rss_limit_mb=2048 "$corpus.small" "$corpus" "fuzz/seeds/$target"
    rm -rf "$corpus"
    mv "$corpus.small" "$corpus"
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}; the inputs are in fuzz/artifacts/"; exit 1; }
