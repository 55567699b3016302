#!/usr/bin/env bash
# Installs what the demo, the tests and the benchmarks need besides Rust, on Debian and Ubuntu. On macOS it prints the names of the
# packages. Usage: scripts/setup.sh cc|postgres|pg_cron|grpcurl|pgbouncer|faketime|asyncpg|h2load|npm|buildah ...
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

missing=()
for tool in "$@"; do
  case $tool in
    cc) command -v cc >/dev/null || missing+=(gcc libc6-dev) ;;
    postgres) [ -n "$(postgres_bin)" ] || missing+=(postgresql) ;;
    pgbouncer) PATH=$PATH:/usr/sbin command -v pgbouncer >/dev/null || missing+=(pgbouncer) ;;
    faketime) command -v faketime >/dev/null || missing+=(faketime) ;;
    h2load) command -v h2load >/dev/null || missing+=(nghttp2-client) ;;
    pg_cron) [ "$(uname)" = Darwin ] || ls /usr/lib/postgresql/*/lib/pg_cron.so >/dev/null 2>&1 || missing+=("postgresql-$(postgres_major)-cron") ;;
    asyncpg) [ -n "$(python_with asyncpg)" ] || missing+=(python3-asyncpg) ;;
    buildah) command -v buildah >/dev/null || missing+=(buildah crun) ;;
    npm) command -v npm >/dev/null || missing+=(npm) ;;
    # Debian has no package of it. Go builds it below.
    grpcurl) [ -n "$(grpcurl_path)" ] || command -v go >/dev/null || missing+=(golang-go ca-certificates) ;;
    *) die "setup.sh does not know $tool; see its first lines" ;;
  esac
done

if [ "$(uname)" = Darwin ]; then
  [[ " $* " != *" grpcurl "* ]] || [ -n "$(grpcurl_path)" ] || missing+=(grpcurl)
  brew=$(printf '%s\n' ${missing[@]+"${missing[@]}"} | sed -e 's/^postgresql$/postgresql@17/' -e 's/^nghttp2-client$/nghttp2/' -e 's/^faketime$/libfaketime/' -e 's/^npm$/node/' -e '/^golang-go$\|^ca-certificates$\|^libc6-dev$\|-cron$\|^python3-asyncpg$/d' | sort -u | tr '\n' ' ')
  [ -z "${brew// /}" ] || die "missing on this machine; install with: brew install $brew"
elif [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || die "missing on this machine, by their Debian names: ${missing[*]}"
  say "installing ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if [[ " $* " == *" grpcurl "* ]] && [ -z "$(grpcurl_path)" ]; then
  say "building grpcurl into .tools/bin"
  # The newest version that the Go of Debian can build.
  GOBIN=$PWD/.tools/bin go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.8.9
fi
