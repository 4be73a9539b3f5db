#!/usr/bin/env bash
# The compiler for scripts/fuzz.sh, called by Cargo as RUSTC_WRAPPER: `fuzz-rustc.sh RUSTC ARGUMENT...`.
#
# cargo-fuzz has every crate count its edges, which makes the vendors' crates slow to build and libFuzzer curious about
# them. Only what reads an input for us is counted: our own crates, and those that take TOML, JSON and URLs apart.
set -euo pipefail

case ${CARGO_PKG_NAME:-} in
pgrotate | pgrotate-* | toml | toml_* | winnow | serde_json | url | percent-encoding | stringprep | postgres-protocol)
    exec "$@"
    ;;
esac
arguments=()
for argument in "$@"; do
    case $argument in
    # Many units are built faster, on more than one core.
    -Cpasses=sancov-module | -Ccodegen-units=1) ;;
    *) arguments+=("$argument") ;;
    esac
done
exec "${arguments[@]}"
