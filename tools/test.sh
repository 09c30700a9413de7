#!/usr/bin/env bash
# Runs every test that can run here, group after group, and says at the end how long each took.
#
# One profile and one target folder: nothing is compiled twice. A group that fails does not keep the
# next from running, so one run shows all that is broken.
set -uo pipefail
cd "$(dirname "$0")/.."
runner=CARGO_TARGET_$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')_RUNNER
times=()
failed=0

# Everything but the end-to-end scenarios, which have a limit of their own. Not by package: cargo
# would choose other features of dependencies and build them again.
unit_targets() {
    cargo metadata --no-deps --locked --format-version=1 | python3 -c '
import json, sys
targets = [t for p in json.load(sys.stdin)["packages"] for t in p["targets"] if t["kind"] == ["test"]]
print("--lib --bins", *(f"--test={name}" for name in sorted({t["name"] for t in targets} - {"scenarios", "kubernetes"})))'
}

# In one go: built apart, programs and tests have other features, and everything is compiled twice.
build() { cargo build --workspace --locked --bins --tests; }

unit() {
    local targets
    targets=$(unit_targets) || return 1
    # shellcheck disable=SC2086
    limited 900 cargo test --workspace --locked --no-fail-fast $targets
    local units=$?
    limited 900 cargo test --workspace --locked --no-fail-fast --doc && return $units
}

# Not optimised, so few: `make sim` runs the many.
simulation() { timeout -k 10 900 target/debug/simulation --seeds 120; }

# Few: so that targets stay alive. `make fuzz` is the search.
fuzz() { timeout -k 10 120 target/debug/fuzz --runs 1000; }

e2e() {
    local envoy
    tools/packages.sh || return 1
    envoy=$(tools/envoy.sh) || return 1
    PATH=${envoy%/*}:$PATH limited 1500 cargo test --workspace --locked --test scenarios
}

# The programs of clusters, minutes the first time. Tests that need them say so where they cannot be.
clusters() { tools/kubernetes.sh >/dev/null || [[ ${CI-} != true ]]; }

kubernetes() {
    local envoy
    tools/packages.sh || return 1
    envoy=$(tools/envoy.sh) || return 1
    PATH=${envoy%/*}:$PATH limited 1500 cargo test --workspace --locked --test kubernetes
}

# Gives each test binary a number of seconds: a test that hangs is a test that fails.
limited() {
    local seconds=$1
    shift
    env "$runner=timeout -k 10 $seconds" "$@"
}

group() {
    local started=$SECONDS outcome=ok took
    echo "== $1"
    "$1" || outcome=FAILED failed=1
    took=$((SECONDS - started))
    times+=("$(printf '%-12s %3d min %02d s  %s' "$1" $((took / 60)) $((took % 60)) $outcome)")
}

for name in "${@:-build clusters unit simulation fuzz e2e kubernetes}"; do
    for each in $name; do group "$each"; done
done
printf '\n== minutes of each group\n'
printf '%s\n' "${times[@]}"
exit $failed
