#!/usr/bin/env bash
# Fuzzes one target, for ever or for some seconds: scripts/fuzz.sh TARGET [SECONDS]
# What it finds new is kept in fuzz/corpus/TARGET, what fails in fuzz/artifacts/TARGET.
source "$(dirname "$0")/env.sh"

target=${1:?usage: scripts/fuzz.sh TARGET [SECONDS]; targets: $(cd fuzz/targets && echo *.rs | sed 's/\.rs//g')}
seconds=${2:-0}

features=()
[ "$target" = repository ] && features=(--features repository)
scripts/fuzz-build.sh ${features[@]+"${features[@]}"}
mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target" "fuzz/seeds/$target"
TMPDIR=$(mktemp -d -p "$fuzz_scratch_parent" larder-fuzz-XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
more=()
[ "$target" = repository ] && more=(-len_control=0)
"$CARGO_TARGET_DIR/fuzz/bin/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -max_len=65536 -artifact_prefix="fuzz/artifacts/$target/" ${more[@]+"${more[@]}"} \
    "fuzz/corpus/$target" "fuzz/seeds/$target"
