#!/usr/bin/env bash
# Builds the container image with docker, podman or buildah: the first one found. Usage: scripts/image.sh [NAME]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

name=${1:-treemap}
# The commit and its time, as labels and for `treemap --version`. The same commit gives the same ones.
arguments=(--build-arg "VERSION=$(version)" --tag "$name" --file Dockerfile .)
if [ -n "$(commit %H)" ]; then
  arguments=(--build-arg "REVISION=$(commit %H)" --build-arg "CREATED=$(commit %cd)" --build-arg "SOURCE_DATE_EPOCH=$(commit %ct)"
    "${arguments[@]}")
fi
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
