# What the scripts share. Sourced, from the project's folder.

say() { echo "== $*"; }

die() {
  echo "error: $*" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# The folder with initdb and the others, or nothing: Debian keeps them off the PATH, newest version last.
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

# The major version of the Postgres of this machine, or of the one that Debian would install.
postgres_major() {
  local bin
  bin=$(postgres_bin)
  if [ -n "$bin" ]; then
    "$bin/postgres" --version | grep -oE '[0-9]+' | head -1
  else
    # A new machine has no lists yet.
    as_root apt-get update -qq >&2
    apt-cache depends postgresql | grep -oE 'postgresql-[0-9]+' | grep -oE '[0-9]+' | head -1
  fi
}

# A Python that has a module, or nothing: the system's, where Debian's packages go, or the one on the PATH.
python_with() {
  local python
  for python in /usr/bin/python3 "$(command -v python3 || true)"; do
    if [ -x "$python" ] && "$python" -c "import $1" 2>/dev/null; then
      echo "$python"
      return
    fi
  done
}

# grpcurl as setup.sh builds it, or as it is installed, or nothing.
grpcurl_path() {
  if [ -x .tools/bin/grpcurl ]; then echo .tools/bin/grpcurl; else command -v grpcurl || true; fi
}

# Runs a program of Postgres as somebody it accepts: it refuses root.
as_postgres() {
  if [ "$(id -u)" = 0 ]; then (cd / && runuser -u "$(postgres_user)" -- "$@"); else "$@"; fi
}

postgres_user() {
  if id postgres >/dev/null 2>&1; then echo postgres; else echo nobody; fi
}
