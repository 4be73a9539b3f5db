#!/usr/bin/env bash
# The runbook "Postgres admin password rotation", steps 1 to 6, command by command as it is written:
#
#   PASSWORD=... scripts/fidelity/runbook.sh dev step_1
#
# Only places differ from its text. Each is a variable with the runbook's own place as its default, so that this is
# also what a person would type. The password stands in arguments because it does so in the runbook.
set -euo pipefail

ENVIRONMENT=$1
RESOURCE_GROUP=rg-mindwell-$ENVIRONMENT
POSTGRES_SERVER=pgflex-mindwell-$ENVIRONMENT
KEY_VAULT=kv-mindwell-$ENVIRONMENT
BACKEND_APP=mindwell-$ENVIRONMENT-api
GITHUB_PREFIX=${ENVIRONMENT^^}

# The runbook's later commands name no group: az takes its default.
export AZURE_DEFAULTS_GROUP=$RESOURCE_GROUP

: "${POSTGRES_HOST:=$POSTGRES_SERVER.postgres.database.azure.com:5432}"
: "${APP_URL:=https://mindwell-$ENVIRONMENT-api.azurewebsites.net}"
: "${ENV_FILE:=$HOME/.config/mindwell/$ENVIRONMENT.env}"
: "${BACKEND:=services/backend}"
: "${REPOSITORY:=mindwell/backend}"
: "${OP_CONNECT_HOST:=http://localhost:8080}"

database_url() {
    echo "postgresql+asyncpg://mindwelladmin:$PASSWORD@$POSTGRES_HOST/mindwell_app?sslmode=require"
}

# base64 yields `/` in two passwords of five, and the runbook pastes it into the URL as it is. SQLAlchemy takes that, so
# it has to be taken by pgrotate too: here every password has one. One that holds a part of the login's name Azure
# refuses.
new_password() {
    local drawn
    while :; do
        drawn=$(openssl rand -base64 24)
        case ${drawn,,} in
        *min* | *ind* | *ndw* | *dwe* | *wel* | *ell* | *lla* | *lad* | *adm* | *dmi*) ;;
        */*) break ;;
        esac
    done
    echo "$drawn"
}

# Before you start: the new password goes into 1Password first, here through Connect.
before_you_start() {
    echo "[{\"op\":\"replace\",\"path\":\"/fields/password/value\",\"value\":\"$PASSWORD\"}]" |
        connect --request PATCH "$(item_url)" --header 'Content-Type: application/json' --data @- >/dev/null
}

# The item as it is now.
item() {
    connect "$(item_url)"
}

item_url() {
    local vaults=$OP_CONNECT_HOST/v1/vaults vault item
    vault=$(connect --get "$vaults" --data-urlencode 'filter=name eq "MindWell"' | only_id)
    item=$(connect --get "$vaults/$vault/items" \
        --data-urlencode "filter=title eq \"MindWell $ENVIRONMENT Postgres Admin\"" | only_id)
    echo "$vaults/$vault/items/$item"
}

connect() {
    curl --silent --show-error --fail --config <(echo "header = \"Authorization: Bearer $OP_CONNECT_TOKEN\"") "$@"
}

only_id() {
    python3 -c 'import json, sys; [found] = json.load(sys.stdin); print(found["id"])'
}

# 1. Update the server's password; az itself waits for the operation's `Succeeded`.
step_1() {
    az postgres flexible-server update --name "$POSTGRES_SERVER" --resource-group "$RESOURCE_GROUP" \
        --admin-password "$PASSWORD" --output none
    az postgres flexible-server show --name "$POSTGRES_SERVER" --query state --output tsv
}

# 2. Synchronise Key Vault. Each new version's Secret Id belongs into the ticket.
step_2() {
    az keyvault secret set --vault-name "$KEY_VAULT" --name postgres-admin-password --value "$PASSWORD" \
        --query id --output tsv
    az keyvault secret set --vault-name "$KEY_VAULT" --name database-url --value "$(database_url)" \
        --query id --output tsv
}

# 3. Update App Service.
step_3() {
    az webapp config appsettings set --name "$BACKEND_APP" --settings "DATABASE_URL=$(database_url)" --output none
    az webapp restart --name "$BACKEND_APP"
}

# 4. Update the GitHub secrets, and the file of the self-hosted agents.
step_4() {
    gh secret set "${GITHUB_PREFIX}_DATABASE_URL" --repo "$REPOSITORY" --body "$(database_url)"
    gh secret set "${GITHUB_PREFIX}_POSTGRES_ADMIN_PASSWORD" --repo "$REPOSITORY" --body "$PASSWORD"
    sed -i "s|^DATABASE_URL=.*|DATABASE_URL=$(database_url)|" "$ENV_FILE"
}

# 5. AWS Secrets Manager.
step_5() {
    aws secretsmanager put-secret-value --secret-id "mindwell/$ENVIRONMENT/postgres/admin-password" \
        --secret-string "$PASSWORD" >/dev/null
}

# 6. Validation. 6.1: in services/backend, with its virtual environment active.
step_6_alembic() {
    backend upgrade head
}

# What proves a login without changing anything.
alembic_current() {
    backend current
}

# In a shell of its own, because it goes to another folder.
backend() (
    cd "$BACKEND"
    # shellcheck source=/dev/null
    . .venv/bin/activate
    ALEMBIC_CONFIG=alembic.ini DATABASE_URL=$(database_url) alembic "$@"
)

# 6.2.
step_6_healthz() {
    curl --silent --show-error --fail "$APP_URL/api/healthz"
}

# 6.3. The stream never ends: whoever has seen enough ends it.
step_6_log() {
    exec az webapp log tail --name "$BACKEND_APP"
}

# Another script may take the steps from here.
[ "${BASH_SOURCE[0]}" = "$0" ] || return 0

if ! declare -F -- "${2-}" >/dev/null; then
    echo "error: the runbook has no step ${2-}" >&2
    exit 2
fi
"$2"
