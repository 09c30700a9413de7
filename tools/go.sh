#!/usr/bin/env bash
# tools/go.sh NAME [--built] [LDFLAGS]: builds the programs that tools/NAME/go.mod names as its tools,
# once, and prints the folder with them. Nothing is installed. Run it as often as you like, also twice
# at once; with --built it builds nothing and fails if it would have to.
set -euo pipefail
name=$1
built=
[[ ${2-} != --built ]] || { built=yes; shift; }
flags=${2-}
cd "$(dirname "$0")/$name"
cache=${ATOLL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/atoll}
# Another recipe makes another folder.
folder=$cache/$name-$(cat ../go.sh go.mod go.sum - <<<"$flags" | sha256sum | cut -c1-12)

fail() { echo "tools/go.sh: $*" >&2; exit 1; }

if [[ ! -d $folder ]]; then
    [[ -z $built ]] || fail "$name is not built; run it without --built"
    command -v go >/dev/null || fail "needs Go on PATH, 1.21 or newer (https://go.dev/dl)"
    mkdir -p "$cache"
    exec 9>"$cache/$name.lock"
    flock 9
fi
if [[ ! -d $folder ]]; then
    temporary=$(mktemp -d "$cache/$name.XXXXXX")
    trap 'rm -rf "$temporary"' EXIT
    chmod 755 "$temporary"
    echo "building $name in $cache: some minutes, once" >&2
    # A shared folder of modules is no part of this repository, and an older Go fetches the one that go.mod names.
    export GOWORK=off GOFLAGS='-trimpath -buildvcs=false' GOTOOLCHAIN=auto
    go build -ldflags "-s -w $flags" -o "$temporary/" tool >&2 || fail "cannot build $name"
    mv -T "$temporary" "$folder"
fi
echo "$folder"
