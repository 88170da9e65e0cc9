#!/usr/bin/env bash
# Builds librocksdb.a once and keeps it outside the clone; says nothing when it is there already.
# Only a cache: without it cargo builds RocksDB itself, once per target folder and set of flags.
source "$(dirname "$0")/env.sh"

[ -n "${ROCKSDB_LIB_DIR:-}" ] && exit 0

echo "Building RocksDB $rocksdb_version once; this takes about 20 CPU minutes (10 minutes on two cores)."
build=$LARDER_BUILD_DIR/rocksdb-build.$$
trap 'rm -rf "$build"' EXIT
env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC -u RUSTFLAGS CARGO_TARGET_DIR="$build" \
    cargo build --quiet --release --locked -p librocksdb-sys

# A rename, so that nobody sees half a library; whoever comes second puts the same bytes there.
mkdir -p "$rocksdb_dir"
mv "$(find "$build" -name librocksdb.a | head -n 1)" "$rocksdb_dir/.librocksdb.a.$$"
mv "$rocksdb_dir/.librocksdb.a.$$" "$rocksdb_dir/librocksdb.a"
