#!/usr/bin/env bash
# The whole of pgrotate on one screen: a sandbox comes up, dev, staging and prod are rotated in it,
# and it goes away again. `make demo` builds what this runs.
#
#   PGROTATE_DEMO_LATENCY=typical   lets the vendors take as long as they do in life; default: instant
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${CARGO_TARGET_DIR:-target}/debug
dir=target/demo
latency=${PGROTATE_DEMO_LATENCY:-instant}
ready_within_s=120
sandbox=

# Runs on success, error and Ctrl-C alike: no server outlives the demo.
stop_sandbox() {
    local status=$?
    trap - EXIT
    if [ -n "$sandbox" ] && kill -INT "$sandbox" 2>/dev/null; then
        say "stopping the sandbox"
        wait "$sandbox" || true
    fi
    exit "$status"
}

say() {
    printf '\n== %s\n' "$*"
}

# Shows a command as one would type it, then runs it.
run() {
    printf '\n$ pgrotate %s\n' "$*"
    "$bin/pgrotate" "$@"
}

fail() {
    echo "error: $1" >&2
    sed 's/^/  sandbox: /' "$dir.log" | tail -n 20 >&2
    exit 1
}

# The sandbox prints one line on stdout when everything in it answers.
wait_until_ready() {
    local deadline=$((SECONDS + ready_within_s))
    until grep -q '"ready":true' "$dir.ready"; do
        kill -0 "$sandbox" 2>/dev/null || fail "the sandbox ended before it was ready"
        [ "$SECONDS" -lt "$deadline" ] || fail "the sandbox was not ready within $ready_within_s s"
        sleep 0.1
    done
}

rm -rf "$dir" "$dir.ready" "$dir.log"
mkdir -p target
: >"$dir.ready"
trap stop_sandbox EXIT

say "starting the sandbox: PostgreSQL, the application and the vendors, on loopback"
# A session of its own: Ctrl-C reaches this script, which then stops the sandbox in order.
setsid "$bin/pgrotate-sandbox" up --dir "$dir" --latency "$latency" >"$dir.ready" 2>"$dir.log" &
sandbox=$!
wait_until_ready
echo "ready after $SECONDS s"

export PGROTATE_STATE_DIR=$PWD/$dir/state
config=$(sed -n 's/.*"config":"\([^"]*\)".*/\1/p' "$dir.ready")

run --config "$config" plan dev
run --config "$config" rotate dev staging prod --ticket mindwell/ops#12 --yes
run --config "$config" status

say "dev, staging and prod rotated; $SECONDS s in all"
