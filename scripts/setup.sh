#!/usr/bin/env bash
# Installs what building and testing need and this machine lacks; says nothing when nothing is missing.
# With the argument "build" only what `cargo build` needs; otherwise also what the tests need.
source "$(dirname "$0")/env.sh"
what=${1:-all}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian packages, each asked for by what it is needed for.
packages=()
command -v c++ >/dev/null && command -v cc >/dev/null || packages+=(build-essential)   # zstd, blake3, RocksDB
[ -n "${LIBCLANG_PATH:-}" ] || compgen -G '/usr/lib/llvm-*/lib/libclang.so' >/dev/null || packages+=(libclang-dev)  # bindings of RocksDB
if [ "$what" = all ]; then
    python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)        # the reference reader
    command -v setfattr >/dev/null || packages+=(attr)                                 # the awkward tree
    command -v setfacl >/dev/null || packages+=(acl)
fi
if [ ${#packages[@]} -gt 0 ]; then
    echo "Installing ${packages[*]} with apt-get; this takes about a minute."
    command -v apt-get >/dev/null || { echo "There is no apt-get here: install ${packages[*]} by hand."; exit 1; }
    as_root env DEBIAN_FRONTEND=noninteractive sh -c \
        "apt-get update -qq && apt-get install -y -qq --no-install-recommends ${packages[*]}" >/dev/null
    source scripts/env.sh
fi

scripts/rocksdb.sh
[ "$what" = all ] || exit 0
scripts/servers.sh quick

if [ ! -x "$cargo_deny" ]; then
    echo "Building cargo-deny $cargo_deny_version once; this takes about 4 CPU minutes."
    CARGO_TARGET_DIR=$LARDER_BUILD_DIR/cargo-deny-build.$$ cargo install --quiet --locked \
        --version "$cargo_deny_version" --root "$LARDER_BUILD_DIR/cargo-deny-$cargo_deny_version" cargo-deny
    rm -rf "$LARDER_BUILD_DIR/cargo-deny-build.$$"
fi

if [ -n "$venv" ] && [ ! -f "$venv/ready" ]; then
    echo "Installing the Python packages of the reference reader."
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
    touch "$venv/ready"
fi
