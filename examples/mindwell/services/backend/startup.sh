#!/bin/sh
# What App Service runs: bring the schema up to date, then serve on $PORT.
#
# A migration that fails does not keep the service down: its error is in the log, and /api/healthz
# tells whether the database can be reached. A process that dies at the start can tell nobody.
set -eu
cd "$(dirname "$0")"
PATH="$PWD/.venv/bin:$PATH"
export ALEMBIC_CONFIG=alembic.ini

alembic upgrade head || echo "startup: the migration failed, serving all the same" >&2
exec uvicorn app.main:app --host "${HOST:-127.0.0.1}" --port "${PORT:-8000}"
