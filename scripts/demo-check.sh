#!/usr/bin/env bash
# Runs `make demo` as a newcomer does: waits for its address, checks the answer and the page, presses Ctrl-C, and checks that nothing of it
# is left. Prints the seconds to the first answer. For a clone that is as new as possible: it goes on with what .demo and target hold.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

limit=${1:-900} # seconds
work=$(mktemp -d)
# Everything that the demo calls temporary goes here. The user that runs Postgres uses it too.
chmod 755 "$work"
mkdir -m 1777 "$work/tmp"
log=$work/log
: >"$log"
was_here=$(ls -d .demo 2>/dev/null || true)
files=$(git status --porcelain)
# All processes of the demo inherit this, also those that leave its group.
mark=TREEMAP_DEMO_CHECK=$$
demo=
of_the_demo() { grep -lsaF -e "$mark" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3 || true; }
end() {
  [ -z "$demo" ] || kill -KILL -- "-$demo" 2>/dev/null || true
  of_the_demo | xargs -r kill -KILL
  rm -rf "$work"
}
trap end EXIT
failed() {
  tail -30 "$log" >&2
  die "$*"
}

begun=$SECONDS
# Gives the demo a process group of its own, and a SIGINT that is not ignored, as a terminal does.
set -m
# Its usual port may be the local port of a connection of somebody else; this one is below those that the system gives to clients.
env "$mark" TMPDIR="$work/tmp" TREEMAP_LISTEN_ADDR=127.0.0.1:25051 make demo >"$log" 2>&1 </dev/null &
set +m
demo=$!
until grep -q '^== ready' "$log"; do
  kill -0 "$demo" 2>/dev/null || failed "make demo ended; see above"
  [ $((SECONDS - begun)) -lt "$limit" ] || failed "make demo is not ready after $limit s"
  sleep 0.2
done
seconds=$((SECONDS - begun))
url=$(sed -n 's/^== ready. Look at //p' "$log")
address=${url#http://}
method=shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap
request='{"period":"3m","limit":1}'
answer=$("$(grpcurl_path)" -plaintext -max-time 10 -d "$request" "$address" $method) || failed "no answer by gRPC"
grep -q '"shortPosition"' <<<"$answer" || failed "the answer has no stocks: $answer"
answer=$(curl -sS --fail --max-time 10 -H 'content-type: application/json' -d "$request" "$url/$method") || failed "no answer as JSON"
grep -q '"shortPosition"' <<<"$answer" || failed "the answer as JSON has no stocks: $answer"
page=$(curl -sS --fail --max-time 10 "$url/") || failed "no page"
grep -qi '<!doctype html>' <<<"$page" || failed "the page is no page: $page"
picture=$(curl -sS --fail --max-time 10 "$url/treemap.svg") || failed "no picture"
grep -q '<svg' <<<"$picture" || failed "the picture is no picture: $picture"
say "answers after $seconds s"

begun=$SECONDS
kill -INT -- "-$demo"
while kill -0 -- "-$demo" 2>/dev/null; do
  [ $((SECONDS - begun)) -lt 30 ] || failed "still there 30 s after Ctrl-C: $(ps -o pid,args -g "$demo")"
  sleep 0.1
done
wait "$demo" || true
demo=
grep -q '^== stopped' "$log" || failed "it did not stop in order"
! grep -q '"ERROR"' "$log" || failed "it logged an error"
left=$(of_the_demo)
[ -z "$left" ] || failed "left running: $(ps -o pid,args -p "${left//$'\n'/,}")"
[ ! -e .demo/postgres/postmaster.pid ] || failed "Postgres did not stop"
! (exec 3<>"/dev/tcp/${address%:*}/${address##*:}") 2>/dev/null || failed "$address still accepts connections"
[ -z "$(ls -A "$work/tmp")" ] || failed "left in TMPDIR: $(ls -A "$work/tmp")"
[ "$(git status --porcelain)" = "$files" ] || failed "left in the folder: $(git status --porcelain)"
if [ -z "$was_here" ]; then
  # Its data, which the next run would go on with.
  rm -rf "$(readlink -f .demo/postgres)" .demo
fi
say "Ctrl-C stopped it after $((SECONDS - begun)) s, and nothing is left"
