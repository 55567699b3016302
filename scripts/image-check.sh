#!/usr/bin/env bash
# Runs the image as in production, and checks it: as PID 1, as nobody, on a read-only file system.
# Needs root and buildah; starts its own Postgres. Usage: scripts/image-check.sh [NAME]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

image=localhost/${1:-treemap}
buildah=(buildah --storage-driver vfs)
folder=$(mktemp -d)
container=$("${buildah[@]}" from --pull-never "$image")
server=
end() {
  [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
  as_postgres "$(postgres_bin)/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true
  "${buildah[@]}" umount "$container" >/dev/null 2>&1 || true
  "${buildah[@]}" rm "$container" >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap end EXIT
is() { # name, actual, expected
  [ "$2" = "$3" ] || die "$1 is '$2', not '$3'"
  say "$1: $2"
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

config() { "${buildah[@]}" inspect --type image --format "{{$1}}" "$image"; }
is "user" "$(config .Docker.Config.User)" 65532:65532
is "ports" "$(config .Docker.Config.ExposedPorts)" "map[50051/tcp:{} 8080/tcp:{}]"
is "healthcheck" "$(config .Docker.Config.Healthcheck.Test)" "[CMD /treemap healthcheck]"
is "entrypoint" "$(config .Docker.Config.Entrypoint) $(config .Docker.Config.Cmd)" "[/treemap] [serve]"
label() { config "index .Docker.Config.Labels \"org.opencontainers.image.$1\""; }
is "title" "$(label title)" treemap
is "version" "$(label version)" "$(version)"
is "revision" "$(label revision)" "$(commit %H)"
is "created" "$(label created)" "$(commit %cd)"
is "licenses" "$(label licenses)" MIT
root=$("${buildah[@]}" mount "$container")
size=$(stat -c %s "$root/treemap")
[ "$size" -le 12000000 ] || die "the image adds $size bytes to its base, more than 12 MB"
say "added to the base: $((size / 1000)) kB"
for unwanted in bin/sh usr/bin/sh bin/bash usr/bin/apt usr/bin/dpkg usr/bin/apk; do
  [ ! -e "$root/$unwanted" ] || die "the image holds $unwanted"
done
for wanted in etc/ssl/certs/ca-certificates.crt usr/share/zoneinfo/Australia/Sydney; do
  [ -e "$root/$wanted" ] || die "the image lacks $wanted"
done
is "owner of the folder for the model" "$(stat -c %u:%g "$root/var/lib/treemap")" 65532:65532

say "starting a Postgres"
[ "$(id -u)" != 0 ] || chown "$(postgres_user)" "$folder"
chmod 755 "$folder"
port=$(free_port) grpc=$(free_port) admin=$(free_port)
as_postgres "$(postgres_bin)/initdb" -D "$folder/data" --username=postgres --auth=trust --no-sync >/dev/null
as_postgres "$(postgres_bin)/pg_ctl" -D "$folder/data" -w -l "$folder/log" \
  -o "-p $port -k $folder -c listen_addresses=127.0.0.1 -c fsync=off" start >/dev/null
url="postgres://postgres@127.0.0.1:$port/postgres"

# Does what a container runtime does: own PID namespace (process 1), read-only root, user nobody.
inside() {
  exec unshare --mount --pid --fork --kill-child sh -c '
    mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec chroot --userspec=65532:65532 --groups= "$0" /treemap "$@"' \
    "$root" "$@"
}
export DATABASE_URL=$url TREEMAP_LISTEN_ADDR=127.0.0.1:$grpc TREEMAP_ADMIN_ADDR=127.0.0.1:$admin
commit=$(commit %H)
is "--version" "$(inside --version)" "treemap $(version)${commit:+ (${commit:0:7}, $(commit %cd | cut -dT -f1))}"
(inside migrate) >/dev/null
if (inside healthcheck) 2>"$folder/why"; then die "the healthcheck passes without a server"; fi
say "healthcheck without a server: $(cat "$folder/why")"
(inside serve) 2>"$folder/server.log" &
server=$!
for _ in $(seq 100); do
  ! (inside healthcheck) >/dev/null 2>&1 || break
  sleep 0.1
done
is "healthcheck" "$(inside healthcheck)" ready
pid=$(pgrep -f '^/treemap serve')
is "user of the process" "$(stat -c %u "/proc/$pid")" 65532
is "process number inside" "$(awk '/^NSpid:/ { print $NF }' "/proc/$pid/status")" 1
is "its root" "$(awk '$5 == "/" { print substr($6, 1, 2) }' "/proc/$pid/mountinfo" | tail -1)" ro
answer=$("$(grpcurl_path)" -plaintext -d '{"period":"3m"}' "127.0.0.1:$grpc" shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap)
is "an answer without data" "$answer" "{}"
begun=$(date +%s)
kill -TERM "$pid"
code=0
wait "$server" || code=$?
server=
is "exit code after SIGTERM" "$code" 0
seconds=$(($(date +%s) - begun))
[ "$seconds" -le 10 ] || die "it took $seconds s to stop"
say "stopped after $seconds s"
grep -q '"message":"stopped"' "$folder/server.log" || die "no JSON log: $(cat "$folder/server.log")"
say "the image keeps its promises"
