#!/usr/bin/env bash
# Backs folders up twice, restores them and compares bytes and metadata with a program that shares nothing
# with larder: scripts/round-trip.sh [FOLDER...]. Without any: /usr, and a tree of every awkward file that a
# Linux system knows. Run it as root, or owners and devices do not come back.
source "$(dirname "$0")/env.sh"

scripts/build.sh
PATH=$CARGO_TARGET_DIR/release:$PATH
here=$PWD

scratch=$(mktemp -d "${TMPDIR:-/tmp}/round-trip.XXXXXX")
clean() {
    for tree in "$scratch/awkward" "$scratch/restored"; do
        [ ! -d "$tree" ] || python3 "$here/tests/tools/awkward.py" --remove "$tree"
    done
    rm -rf "$scratch"
}
trap clean EXIT
export XDG_CACHE_HOME=$scratch/cache XDG_STATE_HOME=$scratch/state XDG_CONFIG_HOME=$scratch/config
unset LARDER_PASSWORD_FILE LARDER_PASSWORD_COMMAND
export LARDER_REPO=$scratch/repository LARDER_PASSWORD=round-trip

folders=("$@")
if [ ${#folders[@]} -eq 0 ]; then
    python3 tests/tools/awkward.py "$scratch/awkward"
    folders=(/usr "$scratch/awkward")
fi

larder -q init
status=0
for folder in "${folders[@]}"; do
    folder=$(realpath "$folder")
    larder backup "$folder"
    larder backup "$folder"
    larder restore "latest:$folder" --target "$scratch/restored" --verify
    if python3 tests/tools/compare.py --holes "$folder" "$scratch/restored"; then
        echo "$folder: no difference was found"
    else
        echo "$folder: it did not come back as it was"
        status=1
    fi
    python3 tests/tools/awkward.py --remove "$scratch/restored"
done
larder check --read-data
exit $status
