#!/usr/bin/env bash
# Builds the fuzz targets on the stable toolchain: coverage by LLVM's own pass, without a sanitizer.
# scripts/fuzz-build.sh [--features repository]: with it that of whole repositories, too, for which the engine is built anew.
source "$(dirname "$0")/env.sh"

export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
# With --target the flags do not reach build scripts and macros, which could not link with them.
CARGO_TARGET_DIR=$CARGO_TARGET_DIR/fuzz cargo build --quiet --release --locked \
    --manifest-path fuzz/Cargo.toml --bins --target "$rust_host" "$@"
ln -sfn "$rust_host/release" "$CARGO_TARGET_DIR/fuzz/bin"
