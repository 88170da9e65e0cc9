#!/usr/bin/env bash
# Runs the Python tests (the reference reader on the golden repository, the tools); 77 where there are none.
source "$(dirname "$0")/env.sh"

python=python3
[ -z "$venv" ] || python=$venv/bin/python
export PYTHONDONTWRITEBYTECODE=1
status=77
for folder in tests/reference tests/tools; do
    if compgen -G "$folder/test*.py" >/dev/null; then
        "$python" -W error::SyntaxWarning -m unittest discover --start-directory "$folder" --pattern 'test*.py'
        status=0
    fi
done
exit "$status"
