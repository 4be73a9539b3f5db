#!/usr/bin/env bash
# Makes names of the sandbox known to the machine, where they are not yet:
#
#   scripts/fidelity/hosts.sh kv-mindwell-dev.vault.localhost mindwell-dev-api.scm.localhost
#
# az puts a vault's name before a suffix and asks the system for the address. Some systems know that everything below
# `localhost` is the loopback, and there nothing is changed; glibc alone doesn't.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/common.sh
. scripts/common.sh

missing=()
for name in "$@"; do
    case $name in
    *.localhost) ;;
    *)
        echo "error: $name is no name below localhost" >&2
        exit 2
        ;;
    esac
    getent ahosts "$name" >/dev/null || missing+=("$name")
done
[ ${#missing[@]} -gt 0 ] || exit 0

line="127.0.0.1 ${missing[*]} # pgrotate's sandbox, for make fidelity"
echo "adding to /etc/hosts: $line"
# Appended, never rewritten: in a container the file is a mount and can't be replaced.
if ! echo "$line" | as_root tee -a /etc/hosts >/dev/null; then
    echo "hint:  add that line to /etc/hosts by hand" >&2
    exit 1
fi
