# Functions shared by the scripts, which source this file from the folder of the project.

say() { echo "== $*"; }

die() {
  echo "error: $*" >&2
  exit 1
}

can_be_root() { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }

as_root() {
  can_be_root || die "this needs root, and there is no sudo here: $*"
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Prints the version of the service.
version() { sed -n 's/^version *= *"\(.*\)"/\1/p' Cargo.toml | head -1; }

# Prints something of the commit in a format of git log, with times in UTC; nothing where there is no git.
commit() { TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format="$1" 2>/dev/null || true; }

# Prints the folder with initdb and the other programs of Postgres (the newest version), or nothing. Debian does not put them on the PATH.
postgres_bin() {
  local folder
  for folder in $(ls -d /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin 2>/dev/null | sort -Vr) \
    "$(dirname "$(command -v initdb || echo /none/initdb)")"; do
    if [ -x "$folder/initdb" ]; then
      echo "$folder"
      return
    fi
  done
}

# Prints the major version of the Postgres on this machine, or of the one that Debian would install.
postgres_major() {
  local bin
  bin=$(postgres_bin)
  if [ -n "$bin" ]; then
    "$bin/postgres" --version | grep -oE '[0-9]+' | head -1
  else
    # A new machine has no package lists yet.
    as_root apt-get update -qq >&2
    apt-cache depends postgresql | grep -oE 'postgresql-[0-9]+' | grep -oE '[0-9]+' | head -1
  fi
}

# Prints a Python that has the module $1, or nothing. Tries the system's Python, where Debian installs packages, then the one on the PATH.
python_with() {
  local python
  for python in /usr/bin/python3 "$(command -v python3 || true)"; do
    if [ -x "$python" ] && "$python" -c "import $1" 2>/dev/null; then
      echo "$python"
      return
    fi
  done
}

# Prints the path of the grpcurl that setup.sh builds, or else of the installed one, or nothing.
grpcurl_path() {
  if [ -x .tools/bin/grpcurl ]; then echo .tools/bin/grpcurl; else command -v grpcurl || true; fi
}

# Prints the Chromium of the tests, or nothing.
chromium_path() {
  local name
  for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    command -v $name && return
  done || true
}

# Runs a program of Postgres as a user other than root: Postgres refuses root.
as_postgres() {
  if [ "$(id -u)" = 0 ]; then (cd / && runuser -u "$(postgres_user)" -- "$@"); else "$@"; fi
}

postgres_user() {
  if id postgres >/dev/null 2>&1; then echo postgres; else echo nobody; fi
}
