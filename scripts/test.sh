#!/usr/bin/env bash
# Runs everything that CI runs, each step under a time limit, and sums up at the end.
source "$(dirname "$0")/env.sh"

passed=0 failed=() skipped=() child=
trap '[ -z "$child" ] || kill -TERM "$child" 2>/dev/null; exit 130' INT TERM

# step NAME LIMIT_SECONDS COMMAND...: runs the command, goes on after a failure, remembers it.
step() {
    local name=$1 limit_s=$2 start=$SECONDS status=0
    shift 2
    printf '\n== %s\n' "$name"
    timeout --kill-after=10 "$limit_s" "$@" </dev/null &
    child=$!
    wait "$child" || status=$?
    child=
    case $status in
        0) passed=$((passed + 1)); printf '   ok: %s (%d s)\n' "$name" $((SECONDS - start)) ;;
        77) skipped+=("$name"); printf '   skipped: %s\n' "$name" ;;
        124 | 137) failed+=("$name"); printf '   FAILED: %s took more than %d s\n' "$name" "$limit_s" ;;
        *) failed+=("$name"); printf '   FAILED: %s (exit code %d, %d s)\n' "$name" "$status" $((SECONDS - start)) ;;
    esac
}

# In the foreground, because sudo may ask for a password; then again for the library it may have built.
timeout --foreground 2400 scripts/setup.sh all || { echo "FAILED: what is missing could not be installed"; exit 1; }
source scripts/env.sh

step "format" 60 scripts/fmt-check.sh
step "lint" 1800 cargo clippy --quiet --release --locked --workspace --all-targets -- -D warnings
step "docs" 900 env RUSTDOCFLAGS="-D warnings" \
    cargo doc --quiet --release --locked --workspace --no-deps
step "dependencies" 300 scripts/deny.sh
step "advisories" 150 scripts/advisories.sh
step "build" 1800 scripts/cargo-test.sh --no-run
step "tests" 2400 scripts/cargo-test.sh
step "doc tests" 600 cargo test --quiet --release --locked --workspace --doc
step "no_std" 300 tests/no-std-probe/run.sh
step "fuzz" 1200 scripts/fuzz-smoke.sh
step "Python" 600 scripts/python-tests.sh
step "page" 300 scripts/page-tests.sh
for script in tests/e2e/*.sh; do
    [ -f "$script" ] && step "end to end: $(basename "$script" .sh)" 900 "$script"
done

printf '\n'
[ ${#skipped[@]} -eq 0 ] || printf 'skipped: %s\n' "${skipped[@]}"
if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}"
    printf 'FAILED: %d of %d steps, in %d s\n' ${#failed[@]} $((passed + ${#failed[@]})) "$SECONDS"
    exit 1
fi
printf 'PASSED: all %d steps, in %d s\n' "$passed" "$SECONDS"
