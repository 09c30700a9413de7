#!/usr/bin/env bash
# Builds the Helm that we check the chart with, once, and prints the path of its program. Nothing is
# installed. Run it as often as you like, also twice at once.
set -euo pipefail
cd "$(dirname "$0")/helm"
version=$(sed -n 's|.*helm.sh/helm/v4 v\([0-9.]*\).*|\1|p' go.mod)
cache=${ATOLL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/atoll}
# Another recipe makes another program.
recipe=$(cat ../helm.sh go.mod go.sum | sha256sum | cut -c1-12)
program=$cache/helm-$version-$recipe/helm

fail() { echo "tools/helm.sh: $*" >&2; exit 1; }

if [[ ! -x $program ]]; then
    command -v go >/dev/null || fail "needs Go on PATH, 1.21 or newer (https://go.dev/dl)"
    mkdir -p "$cache"
    exec 9>"$cache/helm.lock"
    flock 9
fi
if [[ ! -x $program ]]; then
    temporary=$(mktemp -d "$cache/helm.XXXXXX")
    trap 'rm -rf "$temporary"' EXIT
    chmod 755 "$temporary"
    echo "building Helm $version in $cache: a minute or two, once" >&2
    # A shared folder of modules is no part of this repository, and an older Go fetches the one that go.mod names.
    export GOWORK=off GOFLAGS='-trimpath -buildvcs=false' GOTOOLCHAIN=auto CGO_ENABLED=0
    go build -ldflags "-s -w -X helm.sh/helm/v4/internal/version.version=v$version" \
        -o "$temporary/helm" helm.sh/helm/v4/cmd/helm >&2 || fail "cannot build Helm $version"
    rm -rf "${program%/*}"
    mv -T "$temporary" "${program%/*}"
fi
echo "$program"
