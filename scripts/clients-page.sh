#!/usr/bin/env bash
# Writes a section of docs/clients.md into a folder, as a reader would: its files, proto/, and its commands as install.sh, 1.sh, 2.sh ...
# Usage: scripts/clients-page.sh SECTION FOLDER [ADDRESS], with ADDRESS in place of the page's.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "$2"
rm -rf "$2/proto"
cp -r proto "$2"
# A block of commands begins with ```sh; any other belongs to the file that the line before it names, as in `client.py`:
awk -v wanted="$1" -v folder="$2" -v address="${3:-127.0.0.1:50051}" '
  /^## / && !inside {
    section = $0 == "## " wanted
    if (section) found = 1
    here = section || $0 == "## Deadlines and retries"
  }
  /^```/ && inside { if (file) close(file); inside = 0; next }
  /^```/ {
    inside = 1
    file = ""
    if (!here) next
    if ($1 == "```sh") file = $2 == "install" ? "install.sh" : ++runs ".sh"
    else if (before ~ /^`.*`:$/) file = substr(before, 2, length(before) - 3)
    else { print "a block without a name: " before > "/dev/stderr"; exit 1 }
    file = folder "/" file
    system("mkdir -p \"$(dirname \"" file "\")\"")
    printf "" > file
    next
  }
  inside && file { gsub(/127\.0\.0\.1:50051/, address); print > file }
  NF { before = $0 }
  END { if (!found) { print "docs/clients.md has no section " wanted > "/dev/stderr"; exit 1 } }
' docs/clients.md
