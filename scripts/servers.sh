#!/usr/bin/env bash
# Installs the servers that the tests of storages and databases talk to and this machine lacks.
# With the argument "all" also the large ones of `make test-storages`. None of them is started by this.
source "$(dirname "$0")/env.sh"
what=${1:-quick}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# Each by what it is needed for.
packages=()
need() { [ -e "$1" ] || packages+=("${@:2}"); }
need /usr/sbin/sshd openssh-server openssh-client                 # SFTP
need /usr/sbin/vsftpd vsftpd                                      # FTP, FTPS
need /usr/sbin/apache2 apache2                                    # WebDAV
need /usr/lib/lighttpd/mod_webdav.so lighttpd lighttpd-mod-webdav # WebDAV
command -v psql >/dev/null && compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || packages+=(postgresql)  # databases
command -v openssl >/dev/null || packages+=(openssl)              # certificates
if [ "$what" = all ]; then
    need /usr/bin/rclone rclone                                   # WebDAV without If-None-Match
    need /usr/bin/radosgw ceph-mon ceph-osd radosgw               # S3
    command -v npm >/dev/null || packages+=(nodejs npm)           # Azurite, s3rver
fi
if [ ${#packages[@]} -gt 0 ]; then
    echo "Installing ${packages[*]} with apt-get; none of them is started."
    command -v apt-get >/dev/null || { echo "There is no apt-get here: install ${packages[*]} by hand."; exit 1; }
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        # Debian asks this file before it starts a service that was just installed.
        trap 'as_root rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    as_root env DEBIAN_FRONTEND=noninteractive sh -c \
        "apt-get update -qq && apt-get install -y -qq --no-install-recommends ${packages[*]}" >/dev/null
fi

if [ ! -f "$LARDER_SERVERS_VENV/ready" ]; then
    echo "Installing moto, WsgiDAV, pyftpdlib and aiosmtpd from PyPI."
    rm -rf "$LARDER_SERVERS_VENV"
    python3 -m venv "$LARDER_SERVERS_VENV"
    "$LARDER_SERVERS_VENV/bin/pip" install --quiet --disable-pip-version-check -r tests/servers/requirements.txt
    touch "$LARDER_SERVERS_VENV/ready"
fi

if [ "$what" = all ] && [ ! -f "$LARDER_SERVERS_NODE/ready" ]; then
    echo "Installing Azurite and s3rver with npm."
    rm -rf "$LARDER_SERVERS_NODE"
    mkdir -p "$LARDER_SERVERS_NODE"
    cp tests/servers/package.json tests/servers/package-lock.json "$LARDER_SERVERS_NODE"
    (cd "$LARDER_SERVERS_NODE" && npm ci --silent --no-audit --no-fund)
    touch "$LARDER_SERVERS_NODE/ready"
fi
