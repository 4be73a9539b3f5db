#!/usr/bin/env bash
# The runbook as a careful operator would script it, for `make bench`: its steps in its order with its commands, each
# waiting for the one before, each checked as the runbook says, and nothing asked that it doesn't ask for.
#
#   scripts/bench/operator.sh dev
#
# In its own favour it leaves out what the runbook leaves out: it reads no copy back, tries no old password, counts no
# sessions, looks at nothing before it begins. Whatever is waited for is asked for again at once.
set -euo pipefail
cd "$(dirname "$0")/../.."
# The environment is this script's first argument, and the steps take it from there.
# shellcheck source=scripts/fidelity/runbook.sh
. scripts/fidelity/runbook.sh

: "${CHANGELOG:=docs/security-changelog.md}"
: "${TICKET_REPOSITORY:=mindwell/ops}"
: "${TICKET:=12}"

# One line of time for each step, for who wants to know where it goes.
at() {
    printf '%s %s\n' "$EPOCHREALTIME" "$1"
}

# What the application answers with its new settings; with the old ones it can't log in.
until_healthy() {
    until step_6_healthz >/dev/null 2>&1; do
        sleep 0.1
    done
}

# az follows the stream, which never ends, so it is ended when it has shown what there was.
log_is_clean() {
    local log tail
    log=$(mktemp)
    step_6_log >"$log" 2>&1 &
    tail=$!
    until grep --quiet --regexp='Application startup complete' --regexp='/api/' "$log"; do
        sleep 0.1
    done
    kill "$tail"
    wait "$tail" || true
    if grep --quiet 'invalid password' "$log"; then
        echo "error: the log has a failed login" >&2
        exit 1
    fi
    rm "$log"
}

record() {
    local message
    message="$(date --utc +%Y-%m-%d): postgres-admin-password and database-url of $ENVIRONMENT rotated by ${USER:-operator}"
    echo "- $message, $TICKET_REPOSITORY#$TICKET" >>"$CHANGELOG"
    curl --silent --show-error --fail --json "{\"text\":\"Password rotation of $ENVIRONMENT is complete\"}" \
        "$ONCALL_WEBHOOK_URL" >/dev/null
    gh api "repos/$TICKET_REPOSITORY/issues/$TICKET/comments" --raw-field "body=$message: $1" >/dev/null
}

at begin
PASSWORD=$(new_password)
before_you_start
at step_1
state=$(step_1)
until [ "$state" = Ready ]; do
    state=$(az postgres flexible-server show --name "$POSTGRES_SERVER" --query state --output tsv)
done
at step_2
secret_ids=$(step_2)
at step_3
step_3
until_healthy
at step_4
step_4
at step_5
step_5
at step_6
step_6_alembic
step_6_healthz >/dev/null
log_is_clean
at step_7
record "$secret_ids"
at end
