#!/usr/bin/env bash
# Builds the Kubernetes manifests and checks them strictly against the published schemas: no unknown field, no missing field.
# Fetches the schemas into .tools, once. `make manifests` also gets kustomize.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

kubernetes=1.34
python=.tools/python/bin
if [ ! -x "$python/kubernetes-validate" ]; then
  say "fetching the schemas of Kubernetes $kubernetes"
  python3 -m venv .tools/python
  "$python/pip" install --quiet --disable-pip-version-check kubernetes-validate==$kubernetes.1
fi
kustomize=$(command -v kustomize || echo .tools/bin/kustomize)
[ -x "$kustomize" ] || die "kustomize is not here; make manifests gets it"
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
for folder in deploy/kubernetes deploy/kubernetes/migrate; do
  "$kustomize" build "$folder" >"$built/all.yaml"
  "$python/kubernetes-validate" --strict --kubernetes-version $kubernetes "$built/all.yaml"
done
say "the manifests are sound"
