#!/usr/bin/env bash
# Refreshes mv_treemap_data with psql alone, for pipelines that have nothing else. Prints the state of the view before and after, and its size.
# Works through a transaction pooler. The exit code is 0 only when the view was refreshed; otherwise the reason is on standard error.
# Usage: DATABASE_URL=postgres://... scripts/refresh-materialized-views.sh
set -euo pipefail

fail() {
  echo "error: $*" >&2
  exit 1
}

[ -n "${DATABASE_URL:-}" ] || fail "DATABASE_URL is not set; expected postgres://user:password@host:5432/database"
command -v psql >/dev/null || fail "psql is not installed; on Debian: apt-get install postgresql-client"
# A keyword of other libraries. psql does not know it.
url=$(sed -E 's/([?&])pgbouncer=[^&]*&?/\1/; s/[?&]$//' <<<"$DATABASE_URL")
export PGCONNECT_TIMEOUT=10 PGAPPNAME=${PGAPPNAME:-refresh-materialized-views}

# Reads statements from standard input and runs them one by one: no session state, nothing prepared.
sql() {
  psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --pset footer=off "$url" || fail "$1"
}

state() {
  sql "the state of the view cannot be read" <<'SQL'
SELECT CASE WHEN c.relispopulated THEN 'populated' ELSE 'never filled' END AS view,
    log.row_count AS rows, log.data_date, log.last_refreshed, log.who AS refreshed_by,
    pg_size_pretty(pg_total_relation_size(c.oid)) AS size
FROM pg_class c
LEFT JOIN (SELECT * FROM public.treemap_refreshes ORDER BY id DESC LIMIT 1) AS log ON true
WHERE c.oid = to_regclass('public.mv_treemap_data')
SQL
}

echo "before:"
state
echo "refreshing ..."
# Waits for a running refresh, then refreshes again: the running one may not have seen the rows just loaded.
sql "the view was not refreshed; it is as it was before" <<'SQL'
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL statement_timeout = '300s';
SET LOCAL lock_timeout = '300s';
SELECT outcome, row_count AS rows, data_date, round(seconds::numeric, 2) AS seconds FROM public.refresh_treemap_data();
COMMIT;
SQL
echo "after:"
state
