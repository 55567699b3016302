#!/usr/bin/env bash
# Leaves a release in target/release-VERSION: a stripped binary for Linux on x86-64 and one on aarch64, an SBOM (CycloneDX), the part of
# CHANGELOG.md for this version, and the checksums. What cannot be made on this machine is named at the end; the exit code is then 1.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

version=$(version)
[ "$(uname)" = Linux ] || die "a release is built on Linux"
[ -n "$(commit %H)" ] && [ -z "$(git status --porcelain)" ] || die "a release is built from a commit, and there are changes in none"
changes() { awk -v part="## [$1]" 'index($0, part) == 1 { on = 1; next } /^## \[/ { on = 0 } on' CHANGELOG.md | sed '/./,$!d'; }
[ -n "$(changes "$version")" ] || die "CHANGELOG.md has no part [$version]: give [Unreleased] that name, and a date"
[ -z "$(changes Unreleased)" ] || say "note: CHANGELOG.md has changes under [Unreleased], which are no part of $version by that page"

folder=target/release-$version
rm -rf "$folder"
mkdir -p "$folder"
missing=()

for cpu in x86_64 aarch64; do
  target=$cpu-unknown-linux-gnu
  if [ "$cpu" != "$(uname -m)" ]; then
    # The compiler of Debian for the other processor links, and compiles what is in C.
    compiler=$cpu-linux-gnu-gcc
    scripts/setup.sh cross || true
    command -v "$compiler" >/dev/null || {
      missing+=("the binary for $cpu: $compiler is not on this machine")
      continue
    }
    export "CARGO_TARGET_${cpu^^}_UNKNOWN_LINUX_GNU_LINKER=$compiler" "CC_${cpu}_unknown_linux_gnu=$compiler"
  fi
  if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
    { command -v rustup >/dev/null && rustup target add "$target"; } || {
      missing+=("the binary for $cpu: Rust's standard library for $target is not on this machine; rustup target add $target brings it")
      continue
    }
  fi
  say "building for $target"
  cargo build --profile dist --locked --bin treemap --target "$target"
  binary=$folder/treemap-$version-$cpu-linux
  cp "target/$target/dist/treemap" "$binary"
  [ "$(readelf --sections --wide "$binary" | grep -c '\.symtab')" = 0 ] || die "$binary is not stripped"
  glibc=$(readelf --version-info --wide "$binary" | grep -oE 'GLIBC_[0-9.]+' | sort -Vu | tail -1)
  say "$binary: $(($(stat -c %s "$binary") / 1000)) kB, needs ${glibc/_/ } or newer"
  [ "$cpu" != "$(uname -m)" ] || "$binary" --version | grep -qF "treemap $version ($(commit %H | cut -c1-7), " ||
    die "$binary does not say its commit: $("$binary" --version)"
done

say "listing the crates in it (SBOM)"
sbom=treemap-$version.cdx
if [ -x .tools/bin/cargo-cyclonedx ] || cargo install --quiet --locked --root .tools cargo-cyclonedx@0.5.9; then
  # It writes beside Cargo.toml.
  SOURCE_DATE_EPOCH=$(commit %ct) .tools/bin/cargo-cyclonedx cyclonedx --quiet --format json --spec-version 1.5 --all --no-build-deps \
    --target x86_64-unknown-linux-gnu --override-filename "$sbom"
  mv "$sbom.json" "$folder/"
  say "$folder/$sbom.json: $(grep -c '"purl"' "$folder/$sbom.json") crates"
else
  missing+=("the SBOM: cargo-cyclonedx could not be built")
fi

changes "$version" >"$folder/CHANGES.md"
(cd "$folder" && sha256sum -- * >SHA256SUMS && sha256sum --check --quiet SHA256SUMS)
say "$folder:"
cat "$folder/SHA256SUMS"
[ ${#missing[@]} = 0 ] || die "the release is not complete:
$(printf '  %s\n' "${missing[@]}")"
