#!/usr/bin/env bash
# Sets up and serves the treemap on this machine: starts a private Postgres in .demo, migrates, loads, refreshes, serves.
# DATA=folder loads real reports and company lists from that folder; without it the script makes a synthetic sample.
# Ctrl-C stops everything. The next run continues with the data in .demo. To start over: rm -rf .demo
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh
# Not optimized: it is built in half the time, and make test goes on with it.
treemap=target/debug/treemap
demo=$PWD/.demo

[ -z "${DATA:-}" ] || [ -d "$DATA" ] || die "DATA is $DATA, which is no folder; expected one with ASIC reports and an ASX company list"
bin=$(postgres_bin)
export DATABASE_URL_FILE=$demo/database-url
unset DATABASE_URL LISTEN_DATABASE_URL LISTEN_DATABASE_URL_FILE TREEMAP_FROM
mkdir -p "$demo"

if [ ! -e "$demo/postgres/PG_VERSION" ]; then
  say "making a private Postgres in .demo"
  rm -rf "$demo/postgres"
  place=$demo/postgres
  if [ "$(id -u)" = 0 ] && ! as_postgres test -x "$PWD"; then
    # The user that runs Postgres instead of root cannot enter this folder (for example in root's home).
    place=$(mktemp -d /var/tmp/treemap-demo-XXXXXX)
    ln -sfn "$place" "$demo/postgres"
  fi
  mkdir -p "$place"
  (umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$demo/password")
  given=$(mktemp)
  cp "$demo/password" "$given"
  [ "$(id -u)" != 0 ] || chown "$(postgres_user)" "$place" "$given"
  as_postgres "$bin/initdb" -D "$place" -U treemap -E UTF8 --auth=scram-sha-256 --pwfile="$given" >/dev/null
  rm "$given"
fi
data=$(cd "$demo/postgres" 2>/dev/null && pwd -P || readlink -f "$demo/postgres")

server=
stop() {
  trap - EXIT
  if [ -n "$server" ]; then
    kill -INT "$server" 2>/dev/null || true
    wait "$server" || true
  fi
  as_postgres "$bin/pg_ctl" -D "$data" -m fast stop >/dev/null || true
  say "stopped; the next run goes on with what is in .demo"
}
trap stop EXIT
trap 'exit 0' INT TERM HUP

# Stops a Postgres that an earlier run could not stop: it would block this one.
as_postgres "$bin/pg_ctl" -D "$data" -m fast stop >/dev/null 2>&1 || true
# Below the ports that the system gives to clients: one of those may be in use though nobody listens.
port=25432
until as_postgres "$bin/pg_ctl" -D "$data" -w -l "$data/log" -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=" start >/dev/null 2>&1; do
  [ $((port += 1)) -lt 25442 ] || die "Postgres does not start; see $data/log"
done

# Real and synthetic data go into separate databases.
database=$([ -n "${DATA:-}" ] && echo reports || echo sample)
password=$(cat "$demo/password")
exists=$(PGPASSWORD=$password "$bin/psql" -h 127.0.0.1 -p $port -U treemap -d postgres -XAtc "SELECT 1 FROM pg_database WHERE datname = '$database'")
[ -n "$exists" ] || PGPASSWORD=$password "$bin/createdb" -h 127.0.0.1 -p $port -U treemap "$database"
(umask 077 && echo "postgres://treemap:$password@127.0.0.1:$port/$database" >"$DATABASE_URL_FILE")

say "migrating"
"$treemap" migrate

loaded=$demo/loaded-$database
if [ "$(cat "$loaded" 2>/dev/null)" != "${DATA:-sample}" ]; then
  if [ -n "${DATA:-}" ]; then
    lists=$(find "$DATA" -type f -name '*.csv' ! -name 'RR*-SSDailyAggShortPos.csv' | sort)
    [ -n "$lists" ] || die "there is no company list (a .csv that is no report) in $DATA"
    while read -r list; do
      say "loading $list"
      "$treemap" load companies "$list"
    done <<<"$lists"
    say "loading the reports in $DATA"
    "$treemap" load shorts "$DATA" || say "going on without what was refused"
  else
    [ -d "$demo/sample" ] || "$treemap" sample "$demo/sample"
    say "loading the sample"
    "$treemap" load companies "$demo/sample/companies.csv"
    "$treemap" load shorts "$demo/sample/reports"
  fi
  say "refreshing"
  "$treemap" refresh
  echo "${DATA:-sample}" >"$loaded"
fi

address=${TREEMAP_LISTEN_ADDR:-127.0.0.1:50051}
! (exec 3<>"/dev/tcp/${address%:*}/${address##*:}") 2>/dev/null || die "something serves on $address already; expected a free port, or another in TREEMAP_LISTEN_ADDR"
say "serving"
# Any free port for the admin port: 8080 may be in use.
# In a process group of its own: Ctrl-C reaches this script alone, and the server gets one signal. A second one would cut its calls.
set -m
TREEMAP_LISTEN_ADDR=$address TREEMAP_ADMIN_ADDR=${TREEMAP_ADMIN_ADDR:-127.0.0.1:0} "$treemap" serve &
set +m
server=$!
tries=0
until "$treemap" query "$address" --limit 1 >/dev/null 2>&1; do
  kill -0 "$server" 2>/dev/null || die "the server ended; see above"
  [ $((tries += 1)) -lt 300 ] || die "the server is not ready after a minute; see above"
  sleep 0.2
done
cat <<EOF

== ready. Look at http://$address

== In another terminal, from this folder:

  $treemap query $address
  curl -H 'content-type: application/json' -d '{"period":"3m","limit":1}' http://$address/shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap
  DATABASE_URL_FILE=.demo/database-url $treemap status

== Ctrl-C stops the server and its Postgres.
EOF
wait "$server"
