#!/usr/bin/env bash
# Installs the system packages behind the tools named as arguments, where a tool is missing:
#
#   scripts/install-packages.sh compiler python postgresql ssh shellcheck
#
# A tool counts as present when it works, wherever it came from; apt is only asked for the rest.
set -euo pipefail

# The server's binaries are kept off PATH by Debian, in a folder per version.
has_postgresql() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null
}

# A compiler without the C library's headers builds nothing.
has_compiler() {
    cc -E -include stdio.h -x c /dev/null >/dev/null 2>&1
}

# Debian's python3 can't make a virtual environment before python3-venv is there.
has_python() {
    python3 -c 'import ensurepip, venv' 2>/dev/null
}

# The server is not on everybody's PATH.
has_ssh() {
    command -v ssh >/dev/null && command -v ssh-keygen >/dev/null &&
        PATH=$PATH:/usr/sbin:/usr/local/sbin command -v sshd >/dev/null
}

has_shellcheck() {
    command -v shellcheck >/dev/null
}

packages_of() {
    case $1 in
    compiler) echo gcc libc6-dev ;;
    python) echo python3-venv ;;
    postgresql) echo postgresql ;;
    ssh) echo openssh-client openssh-server ;;
    shellcheck) echo shellcheck ;;
    esac
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "error: this needs root and there is no sudo: $*" >&2
        return 1
    fi
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
    trap allow_system_cluster EXIT
    as_root mkdir -p "$cluster_settings"
    echo 'create_main_cluster = false' | as_root tee "$cluster_settings/zz-pgrotate-setup.conf" >/dev/null
}

allow_system_cluster() {
    as_root rm -f "$cluster_settings/zz-pgrotate-setup.conf"
    as_root rmdir --ignore-fail-on-non-empty "$cluster_settings"
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
apt_get update
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
