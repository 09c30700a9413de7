#!/usr/bin/env bash
# Runs the benchmarks, or those called $1, in a release build. Their figures, one JSON line each, are
# all that goes to stdout.
set -euo pipefail
cd "$(dirname "$0")/.."
benches=$(cargo metadata --no-deps --locked --format-version=1 | python3 -c '
import json, sys
wanted = sys.argv[1]
for package in json.load(sys.stdin)["packages"]:
    for target in package["targets"]:
        if "bench" in target["kind"] and wanted in ("", target["name"]):
            print(package["name"], target["name"])' "${1:-}")
[[ -n $benches ]] || { echo "no benchmark is called ${1:-anything}" >&2; exit 1; }
# Apart, so that a benchmark of a small crate does not build the others.
while read -r package bench; do
    if [[ $package == e2e || $package == load ]]; then
        # They measure the programs, e2e with real Envoys.
        cargo build --quiet --release --locked --workspace --bins
        envoy=$(tools/envoy.sh)
        export PATH=${envoy%/*}:$PATH
    fi
    # Minutes, once.
    [[ $bench != cluster ]] || tools/kubernetes.sh >/dev/null
    cargo bench --quiet --locked --package "$package" --bench "$bench" </dev/null
done <<<"$benches"
