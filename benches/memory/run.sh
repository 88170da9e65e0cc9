#!/bin/bash
# Shows that peak memory does not grow with the number of entries: `benches/memory/run.sh [options]`.
#
# Options are those of peak_memory.py, e.g. `--entries 5000000 --one-folder 1000000`. Needs root for
# a tmpfs of its own with enough inodes, which lives in a mount namespace and goes with it; about
# 1 kB of memory for each entry, twice that with restores.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
larder=${LARDER:-}
if [ -z "$larder" ]; then
    make -s -C "$top" build >&2
    # shellcheck source=/dev/null
    larder=$(cd "$top" && source scripts/env.sh && realpath "${CARGO_TARGET_DIR:-target}/release/larder")
fi
exec unshare --mount bash -c '
    set -e
    place=$(mktemp -d)
    mount -t tmpfs -o nr_inodes=0,mode=0700 tmpfs "$place"
    python3 "$0" --scratch "$place" "${@:1}" || code=$?
    umount "$place" && rmdir "$place"
    exit "${code:-0}"
' "$here/peak_memory.py" --larder "$larder" "$@"
