#!/usr/bin/env bash
# Shows larder at work on this very source tree, in a temporary folder that is removed at the end.
source "$(dirname "$0")/env.sh"

scripts/build.sh
PATH=$CARGO_TARGET_DIR/release:$PATH

demo=$(mktemp -d)
trap 'rm -rf "$demo"' EXIT
export XDG_CACHE_HOME=$demo/cache XDG_STATE_HOME=$demo/state XDG_CONFIG_HOME=$demo/config
unset LARDER_REPO LARDER_PASSWORD LARDER_PASSWORD_FILE LARDER_PASSWORD_COMMAND

# say TEXT: what comes next, and why.
say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
# run COMMAND: shows a command as a person would type it, then does it.
run() {
    printf '\033[32m$ %s\033[0m\n' "$1"
    eval "$1"
}

# A copy, so that a file can be changed without touching the clone.
tar -cf - --exclude=./.git --exclude=./target . | { mkdir "$demo/larder" && tar -xf - -C "$demo/larder"; }
cd "$demo"

say "A password, in a file that only you can read, and an encrypted repository in a folder"
run "(umask 077; echo 'correct horse battery staple' > password)"
run "export LARDER_REPO=$demo/repo"
run "larder init --password-file password"

say "The first backup reads and stores everything"
run "larder backup larder --password-file password"

say "A file changes; the next backup stores what changed"
run "echo 'Remember the milk.' >> larder/CHANGELOG.md"
run "larder backup larder --password-file password"
run "larder snapshots --password-file password"
run "larder diff latest~1 latest --password-file password"
run "larder ls latest:$demo/larder/scripts --password-file password"

say "Back to a folder: both points in time"
run "larder restore latest:$demo/larder --target now --password-file password"
run "larder restore latest~1:$demo/larder --target before --password-file password"
run "diff -r larder now && echo 'now: every byte is the same'"
run "diff before/CHANGELOG.md now/CHANGELOG.md || true"

say "Every byte of the repository is read, opened and hashed"
run "larder check --read-data --password-file password"
run "larder stats --password-file password"

say "That was all; the demo's folder goes away. Next: larder --help, and README.md"
