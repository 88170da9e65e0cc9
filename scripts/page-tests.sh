#!/usr/bin/env bash
# Tests the web page: its pure functions with node, and with the argument "browser" all of it in Chromium against the larder
# that was built. Installs what is missing: node and chromium from Debian, Playwright and axe from npm.
source "$(dirname "$0")/env.sh"
what=${1:-unit}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

packages=()
command -v node >/dev/null && command -v npm >/dev/null || packages+=(nodejs npm)
[ "$what" = unit ] || command -v chromium >/dev/null || packages+=(chromium)
if [ ${#packages[@]} -gt 0 ]; then
    echo "Installing ${packages[*]} with apt-get."
    command -v apt-get >/dev/null || { echo "There is no apt-get here: install ${packages[*]} by hand."; exit 1; }
    as_root env DEBIAN_FRONTEND=noninteractive sh -c \
        "apt-get update -qq && apt-get install -y -qq --no-install-recommends ${packages[*]}" >/dev/null
fi

node --test tests/page/unit/*.test.js
[ "$what" != unit ] || exit 0

larder=$CARGO_TARGET_DIR/release/larder
[ -x "$larder" ] || { echo "There is no $larder: build it first, with scripts/build.sh."; exit 1; }
node_packages=$LARDER_BUILD_DIR/page-node-$(cksum <tests/page/package-lock.json | cut -d' ' -f1)
if [ ! -f "$node_packages/ready" ]; then
    echo "Installing Playwright and axe with npm; no browser comes with them."
    rm -rf "$node_packages"
    mkdir -p "$node_packages"
    cp tests/page/package.json tests/page/package-lock.json "$node_packages"
    (cd "$node_packages" && PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --silent --no-audit --no-fund)
    touch "$node_packages/ready"
fi

export LARDER_BIN=$larder LARDER_PAGE_NODE=$node_packages
export LARDER_CHROMIUM=${LARDER_CHROMIUM:-$(command -v chromium)}
node --test --test-timeout=600000 tests/page/browser/*.test.js
