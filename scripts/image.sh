#!/usr/bin/env bash
# Builds the container image with docker, podman or buildah: the first one found. Usage: scripts/image.sh [NAME]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

name=${1:-treemap}
arguments=(--build-arg "VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)"
  --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" --tag "$name" --file Dockerfile .)
# Behind a proxy with its own CA (named by SSL_CERT_FILE), the build needs that CA too. The CA does not stay in the image.
volume=()
[ -z "${SSL_CERT_FILE:-}" ] || volume=(--volume "$SSL_CERT_FILE:/etc/ssl/certs/ca-certificates.crt:ro")
if docker info >/dev/null 2>&1; then
  docker build "${arguments[@]}"
elif command -v podman >/dev/null; then
  podman build --format docker ${volume[@]+"${volume[@]}"} "${arguments[@]}"
elif command -v buildah >/dev/null; then
  # Runs without an engine, and without the rights that namespaces need. Only docker's format supports HEALTHCHECK.
  buildah --storage-driver vfs build --isolation chroot --format docker --layers ${volume[@]+"${volume[@]}"} "${arguments[@]}"
else
  die "none of docker (with its engine), podman and buildah is here; on Debian: apt-get install buildah"
fi
