#!/usr/bin/env bash
# Builds the Kubernetes manifests and checks them strictly against the published schemas: no unknown field, no missing field.
# Fetches kustomize (with Go 1.22 or newer) and the schemas (with Python) into .tools, once.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

kubernetes=1.34
python=.tools/python/bin
if [ ! -x "$python/kubernetes-validate" ]; then
  say "fetching the schemas of Kubernetes $kubernetes"
  python3 -m venv .tools/python || die "Python cannot make a venv; on Debian: apt-get install python3-venv"
  "$python/pip" install --quiet --disable-pip-version-check kubernetes-validate==$kubernetes.1
fi
kustomize=$(command -v kustomize || echo .tools/bin/kustomize)
if [ ! -x "$kustomize" ]; then
  say "building kustomize into .tools/bin"
  command -v go >/dev/null || die "neither kustomize nor Go is here to build it with"
  GOBIN=$PWD/.tools/bin go install sigs.k8s.io/kustomize/kustomize/v5@v5.7.1
fi
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
for folder in deploy/kubernetes deploy/kubernetes/migrate; do
  "$kustomize" build "$folder" >"$built/all.yaml"
  "$python/kubernetes-validate" --strict --kubernetes-version $kubernetes "$built/all.yaml"
done
say "the manifests are sound"
