#!/usr/bin/env bash
# Fetches and builds what a Kubernetes cluster of the tests is made of, once, and prints the folder:
# `bin` has Kubernetes, CoreDNS and pause, built from Go modules; `debian` has unpacked Debian packages
# (etcd, containerd, runc, nft). Nothing is installed. Run it as often as you like, also twice at once;
# with --built it builds nothing and fails if it would have to.
set -euo pipefail
cd "$(dirname "$0")/kubernetes"
version=$(sed -n 's|^\tk8s.io/kubernetes v\([0-9.]*\).*|\1|p' go.mod)
packages=(containerd runc containernetworking-plugins etcd-server
    nftables libnftables1 libnftnl11 libmnl0 libjansson4 libgmp10 libedit2 libbsd0 libmd0 libtinfo6
    libxtables12 libseccomp2)
programs=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl)
cache=${ATOLL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/atoll}

fail() { echo "tools/kubernetes.sh: $*" >&2; exit 1; }

fetch_packages() {
    mkdir -p "$1/debs" "$1/debian"
    cd "$1/debs"
    apt-get download --quiet --quiet "${packages[@]}" >&2 ||
        { apt-get update --quiet --quiet >&2 && apt-get download --quiet --quiet "${packages[@]}" >&2; } ||
        fail "cannot download Debian packages: ${packages[*]}"
    for each in *.deb; do dpkg-deb --extract "$each" ../debian; done
    printf '%s\n' *.deb >../packages
    cd .. && rm -r debs
}

build() {
    local out=$1/bin component=k8s.io/component-base/version started
    # A shared folder of modules is no part of this repository, whatever lies above it.
    export GOWORK=off GOFLAGS='-trimpath -buildvcs=false'
    # An older Go fetches the one that go.mod names.
    export GOTOOLCHAIN=auto
    local stamp="-s -w -X $component.gitVersion=v$version -X $component.gitMajor=${version%%.*}"
    stamp+=" -X $component.gitMinor=$(cut -d. -f2 <<<"$version") -X $component.gitTreeState=clean"
    for each in "${programs[@]}"; do
        started=$SECONDS
        go build -ldflags "$stamp" -o "$out/$each" "k8s.io/kubernetes/cmd/$each" || fail "cannot build $each"
        echo "built $each in $((SECONDS - started)) s" >&2
    done
    # These run in images with nothing beside them.
    export CGO_ENABLED=0
    go build -ldflags "-s -w" -o "$out/pause" ./pause || fail "cannot build pause"
    (cd coredns && go build -ldflags "-s -w" -o "$out/coredns" .) || fail "cannot build CoreDNS"
}

# Another recipe makes another folder, so that none is half of this and half of that.
recipe=$({ declare -p packages programs; declare -f fetch_packages build; cat go.mod go.sum coredns/* pause/*; } |
    sha256sum | cut -c1-12)
folder=$cache/kubernetes-$version-$recipe
if [[ ! -e $folder/packages ]]; then
    [[ ${1-} != --built ]] || fail "Kubernetes $version is not built; run it without --built"
    [[ $(uname -m) == x86_64 ]] || fail "is for x86_64 only"
    command -v go >/dev/null || fail "needs Go on PATH, 1.21 or newer (https://go.dev/dl)"
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        fail "needs apt-get and dpkg-deb: it takes etcd, containerd and runc from Debian"
    mkdir -p "$cache"
    exec 9>"$cache/kubernetes.lock"
    flock 9
fi
if [[ ! -e $folder/packages ]]; then
    temporary=$(mktemp -d "$cache/kubernetes.XXXXXX")
    trap 'rm -rf "$temporary"' EXIT
    chmod 755 "$temporary"
    echo "building Kubernetes $version in $cache: some minutes, once" >&2
    (fetch_packages "$temporary")
    build "$temporary"
    for each in usr/bin/containerd usr/bin/etcd usr/sbin/runc usr/sbin/nft usr/lib/cni/bridge; do
        [[ -x $temporary/debian/$each ]] || fail "the Debian packages have no $each"
    done
    rm -rf "$folder"
    mv -T "$temporary" "$folder"
fi
echo "$folder"
