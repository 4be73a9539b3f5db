#!/usr/bin/env bash
# Installs the system packages behind the tools named as arguments, where a tool is missing:
#
#   scripts/install-packages.sh compiler cxx openssl python postgresql ssh shellcheck gh curl strace
#
# A tool counts as present when it works, wherever it came from; apt is only asked for the rest.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

# The server's binaries are kept off PATH by Debian, in a folder per version.
has_postgresql() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null
}

# A compiler without the C library's headers builds nothing.
has_compiler() {
    cc -E -include stdio.h -x c /dev/null >/dev/null 2>&1
}

# libFuzzer is C++.
has_cxx() {
    c++ -E -include cstdio -x c++ /dev/null >/dev/null 2>&1
}

# Debian's python3 can't make a virtual environment before python3-venv is there.
has_python() {
    python3 -c 'import ensurepip, venv' 2>/dev/null
}

has_openssl() {
    command -v openssl >/dev/null
}

# The server is not on everybody's PATH.
has_ssh() {
    command -v ssh >/dev/null && command -v ssh-keygen >/dev/null &&
        PATH=$PATH:/usr/sbin:/usr/local/sbin command -v sshd >/dev/null
}

has_strace() {
    command -v strace >/dev/null
}

has_shellcheck() {
    command -v shellcheck >/dev/null
}

has_jq() {
    command -v jq >/dev/null
}

has_gh() {
    command -v gh >/dev/null
}

has_curl() {
    command -v curl >/dev/null
}

packages_of() {
    case $1 in
    compiler) echo gcc libc6-dev ;;
    cxx) echo g++ ;;
    openssl) echo openssl ;;
    python) echo python3-venv ;;
    postgresql) echo postgresql ;;
    ssh) echo openssh-client openssh-server ;;
    strace) echo strace ;;
    shellcheck) echo shellcheck ;;
    jq) echo jq ;;
    gh) echo gh ;;
    curl) echo curl ;;
    esac
}

# Keeps apt's pages of output for the case that it fails.
apt_get() {
    local log
    log=$(mktemp)
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" </dev/null >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

# Installing Debian's PostgreSQL makes and starts a cluster, unless told otherwise while it is being
# installed. Ours are the sandbox's own, and nobody asked for a database on this machine.
cluster_settings=/etc/postgresql-common/createcluster.d

forbid_system_cluster() {
    apt_get install --no-install-recommends postgresql-common
    as_root mkdir -p "$cluster_settings"
    echo 'create_main_cluster = false' | as_root tee "$cluster_settings/zz-pgrotate-setup.conf" >/dev/null
}

allow_system_cluster() {
    [ -e "$cluster_settings/zz-pgrotate-setup.conf" ] || return 0
    as_root rm -f "$cluster_settings/zz-pgrotate-setup.conf"
    as_root rmdir --ignore-fail-on-non-empty "$cluster_settings"
}

# Debian's sshd begins to serve the whole network as soon as it is installed. The tests only want the program, and start
# one of their own on loopback.
start_policy=/usr/sbin/policy-rc.d

forbid_services() {
    [ ! -e "$start_policy" ] || return 0
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$start_policy" >/dev/null
    as_root chmod 755 "$start_policy"
    services_forbidden=yes
}

tidy_up() {
    allow_system_cluster
    [ -z "${services_forbidden:-}" ] || as_root rm -f "$start_policy"
}

missing=()
packages=()
for tool in "$@"; do
    if [ -z "$(packages_of "$tool")" ]; then
        echo "error: $0 knows no tool named $tool" >&2
        exit 2
    fi
    if ! "has_$tool"; then
        missing+=("$tool")
        read -ra names <<<"$(packages_of "$tool")"
        packages+=("${names[@]}")
    fi
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "error: missing: ${missing[*]}" >&2
    echo "hint:  this machine has no apt; install what Debian calls: ${packages[*]}" >&2
    exit 1
fi

echo "installing ${packages[*]}"
trap tidy_up EXIT
apt_get update
if [[ " ${missing[*]} " == *" ssh "* ]]; then
    forbid_services
fi
if [[ " ${missing[*]} " == *" postgresql "* ]]; then
    forbid_system_cluster
fi
apt_get install --no-install-recommends "${packages[@]}"

for tool in "${missing[@]}"; do
    if ! "has_$tool"; then
        echo "error: $tool is still missing after apt-get install $(packages_of "$tool")" >&2
        exit 1
    fi
done
