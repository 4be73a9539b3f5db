#!/usr/bin/env bash
# Makes a Python virtual environment from a list of pinned requirements:
#
#   scripts/make-venv.sh examples/mindwell/services/backend/.venv examples/mindwell/services/backend/requirements.txt
#
# Does nothing when the environment is already what it would make. The stamp that says so is written
# last and holds everything the environment depends on: the requirements, the interpreter, and the
# place, since a virtual environment doesn't survive being moved.
set -euo pipefail

folder=$1
requirements=$2
stamp=$folder/.complete

mkdir -p "$folder"
wanted=$(
    python3 -c 'import sys; print(sys.executable, sys.version)'
    realpath "$folder"
    sha256sum <"$requirements"
)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

echo "making $folder"
rm -rf "$folder"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { python3 -m venv "$folder" &&
    "$folder/bin/python" -m pip install --disable-pip-version-check --no-input -r "$requirements"; } \
    >"$log" 2>&1; then
    cat "$log" >&2
    rm -rf "$folder"
    exit 1
fi
printf '%s\n' "$wanted" >"$stamp"
