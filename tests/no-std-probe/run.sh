#!/usr/bin/env bash
# Builds the probe, runs it, and looks for std among its symbols.
source "$(dirname "$0")/../../scripts/env.sh"

# Flags meant for the workspace are not for this: panic=abort has a meaning here.
unset RUSTFLAGS
export CARGO_TARGET_DIR=$CARGO_TARGET_DIR/no-std-probe
cargo build --quiet --release --locked --manifest-path tests/no-std-probe/Cargo.toml
probe=$CARGO_TARGET_DIR/release/no-std-probe
"$probe"

# Both ways in which rustc names a symbol of the std crate.
if nm --no-demangle "$probe" | grep -E ' (_ZN3std|_RN[A-Za-z]*C[A-Za-z0-9]*_3std)'; then
    echo "larder-format links std, through the symbols above"
    exit 1
fi
echo "larder-format and all that it needs link without std"
