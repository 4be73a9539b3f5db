# What the scripts share; to be sourced.
# shellcheck shell=bash

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
