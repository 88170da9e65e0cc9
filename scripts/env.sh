# Sourced by the other scripts: where things are built and kept, all of it outside the clone.
#
# LARDER_BUILD_DIR   what is kept between clones: RocksDB, cargo-deny, the Python environment
# CARGO_TARGET_DIR   what cargo builds (default: inside LARDER_BUILD_DIR)
# ROCKSDB_LIB_DIR    the folder of a ready librocksdb.a; set here once scripts/rocksdb.sh has run

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

export LARDER_BUILD_DIR=${LARDER_BUILD_DIR:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/larder-build}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$LARDER_BUILD_DIR/target}
[ -d "${CARGO_HOME:-$HOME/.cargo}/bin" ] && PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
export PATH

# The name says everything that the library's bytes depend on.
rocksdb_version=$(awk '$3 == "\"librocksdb-sys\"" { getline; gsub(/"/, "", $3); print $3; exit }' Cargo.lock)
rocksdb_features=$(sed -n 's/^rocksdb = .*features = \[\(.*\)\].*/\1/p' Cargo.toml | tr -d '" ' | tr ',' '-')
rust_host=$(rustc -vV | sed -n 's/^host: //p')
rocksdb_dir=$LARDER_BUILD_DIR/rocksdb-$rocksdb_version-$rocksdb_features-$rust_host

if [ -z "${ROCKSDB_LIB_DIR:-}" ] && [ -f "$rocksdb_dir/librocksdb.a" ]; then
    export ROCKSDB_LIB_DIR=$rocksdb_dir ROCKSDB_STATIC=1
fi

cargo_deny_version=0.20.2
cargo_deny=$LARDER_BUILD_DIR/cargo-deny-$cargo_deny_version/bin/cargo-deny

requirements=tests/reference/requirements.txt
if [ -f "$requirements" ]; then
    venv=$LARDER_BUILD_DIR/venv-$(cat "$requirements" <(python3 --version 2>&1) | cksum | cut -d' ' -f1)
else
    venv=
fi

# The servers that the tests of storages talk to (scripts/servers.sh).
export LARDER_SERVERS_VENV=$LARDER_BUILD_DIR/servers-python-$(cat tests/servers/requirements.txt <(python3 --version 2>&1) | cksum | cut -d' ' -f1)
export LARDER_SERVERS_NODE=$LARDER_BUILD_DIR/servers-node-$(cksum <tests/servers/package-lock.json | cut -d' ' -f1)

# Where fuzz targets may leave what they work with, to be cleared by who starts them.
fuzz_scratch_parent=/dev/shm
[ -d "$fuzz_scratch_parent" ] || fuzz_scratch_parent=${TMPDIR:-/tmp}
