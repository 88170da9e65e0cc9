#!/usr/bin/env bash
# Reads the golden repository with the reference reader; 77 (skipped) where there is none yet.
source "$(dirname "$0")/env.sh"

compgen -G 'tests/golden/*' >/dev/null && [ -n "$venv" ] || exit 77
cd tests/reference
PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -m unittest discover --pattern 'test*golden*.py'
