#!/usr/bin/env bash
# Tries `make demo`, and what `make test` installs, in bare containers: Debian 12 with Rust, Debian 13 without. Besides that there is only
# make. In a Debian 12 without Rust, `make demo` has to print how to get it. Needs root and buildah; `make bare-check` installs buildah, and
# runs the script that BASES names, to make the images where no registry is reachable.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

buildah=(buildah --storage-driver vfs)
work=$(mktemp -d)
container=
drop() {
  [ -z "$container" ] || "${buildah[@]}" rm "$container" >/dev/null
  container=
}
trap 'drop; rm -rf "$work"' EXIT
git clone --quiet . "$work/treemap"

# Behind a proxy with its own CA (named by SSL_CERT_FILE), every package manager inside needs that CA too.
ca=()
settings=(DEBIAN_FRONTEND=noninteractive)
if [ -n "${SSL_CERT_FILE:-}" ]; then
  ca=(--volume "$SSL_CERT_FILE:/run/ca.crt:ro")
  for name in SSL_CERT_FILE CARGO_HTTP_CAINFO NODE_EXTRA_CA_CERTS PIP_CERT; do settings+=("$name=/run/ca.crt"); done
fi
inside() {
  "${buildah[@]}" run --isolation chroot --workingdir /treemap ${ca[@]+"${ca[@]}"} "$container" -- env "${settings[@]}" "$@"
}
enter() { # image
  say "$1"
  container=$("${buildah[@]}" from "$1")
  "${buildah[@]}" add --quiet "$container" "$work/treemap" /treemap >/dev/null
  inside sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends make >/dev/null'
}

enter docker.io/library/debian:bookworm-slim
! inside make demo >"$work/log" 2>&1 || die "make demo works without Rust"
grep -A1 'there is no Rust on this machine' "$work/log" || die "make demo does not report that Rust is missing: $(cat "$work/log")"
drop

for image in docker.io/library/rust:1.95-slim-bookworm docker.io/library/debian:trixie-slim; do
  enter "$image"
  inside bash -c '
    : >/tmp/log
    set -m
    make demo >/tmp/log 2>&1 </dev/null &
    set +m
    until grep -q "^== ready" /tmp/log; do
      kill -0 $! 2>/dev/null && [ $SECONDS -lt 1800 ] || { tail -30 /tmp/log; exit 1; }
      sleep 1
    done
    target/debug/treemap query --limit 1 --format json | grep -q currentPercent || exit 1
    echo "== make demo answers after $SECONDS s"
    kill -INT -- -$!
    wait $!
    grep -q "^== stopped" /tmp/log' || die "make demo does not work in $image"
  begun=$SECONDS
  # The first line of `make test`; the tests themselves are the same everywhere.
  inside sh -c "$(make --dry-run test | head -1)" || die "make test cannot install what it needs in $image"
  say "what make test needs is installed, in $((SECONDS - begun)) s"
  drop
done
say "the bare containers are served"
