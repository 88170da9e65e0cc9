#!/bin/bash
# Compares larder with its peers on this machine: `benches/peers/run.sh [options of compare_tools.py]`.
#
# Fetches the newest restic that a Debian suite offers and the source of Linux 6.1 (nothing is
# installed but the package linux-source-6.1), builds larder if LARDER does not name a binary,
# and measures every tool in turn. Repositories and restored files lie on a tmpfs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
work=${LARDER_BENCH_DIR:-/var/tmp/larder-bench}
suite=${LARDER_BENCH_SUITE:-trixie}
mkdir -p "$work"

# A package of another suite, unpacked beside the system: the system's own apt is not touched.
fetch_restic() {
    [ -x "$work/restic/usr/bin/restic" ] && return
    local apt=$work/apt
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
        "http://deb.debian.org/debian $suite main" >"$apt/sources.list"
    local options=(
        -qq -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache"
        -o APT::Sandbox::User=root -o Acquire::Languages=none
    )
    apt-get "${options[@]}" update
    (cd "$apt" && apt-get "${options[@]}" download restic)
    dpkg-deb -x "$apt"/restic_*.deb "$work/restic"
}

fetch_linux() {
    [ -d "$work/linux/linux-source-6.1" ] && return
    [ -e /usr/src/linux-source-6.1.tar.xz ] || apt-get install -qq -y --no-install-recommends linux-source-6.1
    echo "unpacking the source of Linux 6.1" >&2
    rm -rf "$work/linux.part" && mkdir "$work/linux.part"
    tar -C "$work/linux.part" -xf /usr/src/linux-source-6.1.tar.xz
    mv "$work/linux.part" "$work/linux"
}

larder=${LARDER:-}
if [ -z "$larder" ]; then
    echo "building larder" >&2
    make -s -C "$top" build >&2
    # shellcheck source=/dev/null
    larder=$(cd "$top" && source scripts/env.sh && echo "${CARGO_TARGET_DIR:-target}/release/larder")
    larder=$(cd "$top" && realpath "$larder")
fi
fetch_restic
fetch_linux
exec python3 "$here/compare_tools.py" --larder "$larder" --restic "$work/restic/usr/bin/restic" \
    --source "$work/linux/linux-source-6.1" --scratch "${LARDER_BENCH_TMPFS:-/dev/shm}" "$@"
