#!/usr/bin/env bash
# Leaves a release in target/release-VERSION: a stripped binary for Linux on x86-64 and one on aarch64, the manual page, completions, the
# systemd unit, LICENSE, an SBOM (CycloneDX), the part of CHANGELOG.md for this version, and the checksums. What cannot be made on this
# machine is named at the end; the exit code is then 1.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

version=$(version)
[ "$(uname)" = Linux ] || die "a release is built on Linux"
[ -n "$(commit %H)" ] && [ -z "$(git status --porcelain)" ] || die "a release is built from a commit; this folder has changes that are in none"
changes() { awk -v part="## [$1]" 'index($0, part) == 1 { on = 1; next } /^## \[/ { on = 0 } on' CHANGELOG.md | sed '/./,$!d'; }
[ -n "$(changes "$version")" ] || die "CHANGELOG.md has no part [$version]: give [Unreleased] that name, and a date"
[ -z "$(changes Unreleased)" ] || die "CHANGELOG.md has changes under [Unreleased]: give that part the version $version and a date, or move them"
for file in deploy/kubernetes/kustomization.yaml deploy/kubernetes/migrate/kustomization.yaml deploy/cloudrun/{service,refresh-job}.yaml; do
  grep -qE "(newTag: |/treemap:)${version//./\\.}$" "$file" || die "$file does not name version $version"
done

folder=target/release-$version
rm -rf "$folder"
mkdir -p "$folder"
missing=()
# The binary that runs on this machine.
native=

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
  [ "$cpu" != "$(uname -m)" ] || native=$binary
done

cp LICENSE deploy/systemd/treemap.service "$folder"
if [ -n "$native" ]; then
  "$native" --version | grep -qF "treemap $version ($(commit %H | cut -c1-7), " ||
    die "$native does not name its commit: $("$native" --version)"
  "$native" man >"$folder/treemap.1"
  # By the names under which each shell looks for them, but for bash, where it is `treemap` alone.
  "$native" completions bash >"$folder/treemap.bash"
  "$native" completions zsh >"$folder/_treemap"
  "$native" completions fish >"$folder/treemap.fish"
else
  missing+=("the manual page and the completions: no binary runs on this machine")
fi

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
