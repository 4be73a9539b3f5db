#!/usr/bin/env bash
# Fuzzes one target after the other and prints what came of it; `make fuzz` calls this.
#
#   scripts/fuzz.sh SECONDS [TARGET...]     without a target: all of them
#
# What libFuzzer finds on its way is kept in fuzz/corpus, for the next time on this machine; what everybody should have
# is in crates/fuzz/corpus. An input that breaks a promise is left in fuzz/artifacts, and the status is not 0 then.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=$1
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(answers config env_file journal scram url)

# Of a password's hashing nobody learns anything by trying it faster; the longest input is as long as people's files are.
longest=4096
# The system's trust store would be read for every process, and no target connects to anything.
export SSL_CERT_FILE=/dev/null

# Two of them need no vendor's crate, without which they are built in a fraction of the time.
features=()
[[ " ${targets[*]} " =~ \ (answers|config|env_file|scram)\  ]] || features=(--no-default-features)

# Stable Rust has no address sanitizer; there is no unsafe code of ours for it to watch.
export RUSTC_WRAPPER=$PWD/scripts/fuzz-rustc.sh
cargo fuzz build --sanitizer none "${features[@]}"

logs=fuzz/target/logs
mkdir -p "$logs"
failed=()
printf '%-10s %12s %10s %8s %8s  %s\n' target executions per-second edges inputs result
for target in "${targets[@]}"; do
    log=$logs/$target.log
    mkdir -p "fuzz/corpus/$target"
    options=("-max_total_time=$seconds" "-max_len=$longest" -print_final_stats=1 -timeout=20 -rss_limit_mb=2048)
    [ ! -e "fuzz/dictionaries/$target" ] || options+=("-dict=fuzz/dictionaries/$target")
    result=ok
    cargo fuzz run --sanitizer none "${features[@]}" "$target" "fuzz/corpus/$target" "crates/fuzz/corpus/$target" -- "${options[@]}" \
        >"$log" 2>&1 || { result="FAILED, see $log" && failed+=("$target"); }
    stat() { sed -n "s/^stat::$1: *//p" "$log" | tail -1; }
    seen() { grep -o "$1: [0-9]*" "$log" | tail -1 | cut -d' ' -f2; }
    printf '%-10s %12s %10s %8s %8s  %s\n' "$target" "$(stat number_of_executed_units)" \
        "$(stat average_exec_per_sec)" "$(seen cov)" "$(seen corp)" "$result"
done

if [ ${#failed[@]} -gt 0 ]; then
    echo "error: a promise is broken: ${failed[*]}; the input is in fuzz/artifacts" >&2
    echo "hint:  make it small with \`cargo fuzz tmin --sanitizer none TARGET INPUT\`, and put it into crates/fuzz/corpus with the fix" >&2
    exit 1
fi
