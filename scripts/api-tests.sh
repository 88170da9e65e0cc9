#!/usr/bin/env bash
# Fuzzes the HTTP API of the larder that was built by its own OpenAPI document: scripts/api-tests.sh [EXAMPLES]
# Installs Schemathesis from PyPI, outside the clone, where it is missing.
source "$(dirname "$0")/env.sh"

larder=$CARGO_TARGET_DIR/release/larder
[ -x "$larder" ] || { echo "There is no $larder: build it first, with scripts/build.sh."; exit 1; }
# An environment of its own: what the servers of the tests need is pinned otherwise.
api_venv=$LARDER_BUILD_DIR/api-python-$(cat tests/api/requirements.txt <(python3 --version 2>&1) | cksum | cut -d' ' -f1)
if [ ! -f "$api_venv/ready" ]; then
    echo "Installing Schemathesis from PyPI."
    rm -rf "$api_venv"
    python3 -m venv "$api_venv"
    "$api_venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r tests/api/requirements.txt
    touch "$api_venv/ready"
fi
PYTHONDONTWRITEBYTECODE=1 "$api_venv/bin/python" tests/api/fuzz.py "$larder" "$@"
