#!/usr/bin/env bash
# Checks the version of Rust that we promise (rust-version in Cargo.toml): README.md and docs/developing.md name it, and no package in
# Cargo.lock declares a newer one. If rustup has a toolchain of that version, it also checks that everything compiles with it.
# Usage: scripts/rust-version.sh
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

promised=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' Cargo.toml)
[ -n "$promised" ] || die "Cargo.toml has no rust-version"

for page in README.md docs/developing.md; do
  named=$(grep -oE 'Rust \(?[0-9]+(\.[0-9]+)+' "$page" | tr -d 'A-Za-z (' | sort -u | paste -sd " " - || true)
  [ "$named" = "$promised" ] || die "$page names Rust ${named:-in no place}; Cargo.toml says rust-version = \"$promised\""
done

# The metadata is one line of JSON. Of each package it has, in this order: "name", "version", "id", ..., "rust_version".
metadata=$(cargo metadata --locked --format-version 1)
packages=$(grep -oE '"name":"[^"]+","version":"[^"]+","id":|"rust_version":("[^"]+"|null)' <<<"$metadata" |
  awk -F'"' '$2 == "name" { if (name) print name, version, rust; name = $4; version = $8; rust = "-" }
    $2 == "rust_version" { rust = $4 == "" ? "-" : $4 }
    END { if (name) print name, version, rust }')
locked=$(grep -c '^\[\[package\]\]' Cargo.lock)
read_in=$(grep -c . <<<"$packages")
[ "$read_in" = "$locked" ] || die "read $read_in packages in the metadata of cargo; Cargo.lock has $locked"
newer=$(awk -v promised="$promised" '
  function number(version, part) { split(version, part, "."); return part[1] * 1000000 + part[2] * 1000 + part[3] }
  $3 != "-" && number($3) > number(promised) { print "  " $1 " " $2 " needs Rust " $3 }' <<<"$packages")
[ -z "$newer" ] || die "Cargo.lock has packages that need more than Rust $promised:
$newer"
silent=$(awk '$3 == "-"' <<<"$packages" | grep -c . || true)
say "Rust $promised: none of $locked packages declares a newer version ($silent declare none)"

toolchain=
if command -v rustup >/dev/null; then
  toolchain=$(rustup toolchain list | awk '{ print $1 }' | grep -E "^${promised//./\\.}(\.[0-9]+)?-" | head -1 || true)
fi
if [ -n "$toolchain" ]; then
  say "checking with $toolchain"
  cargo "+$toolchain" check --locked --all-targets
else
  say "no toolchain $promised is installed, so nothing was compiled; install it with: rustup toolchain install $promised"
fi
