#!/usr/bin/env bash
# Plants the bugs of simulation/bugs, one after the other, in a copy of this tree, and fails unless
# the simulation finds each within so many seeds: BUG= only those whose name contains it. With --fit it
# only says whether each still fits the code.
set -uo pipefail
cd "$(dirname "$0")/.."
seeds=${SEEDS:-300}
profile=${PROFILE:-sim}
root=$PWD
copy=${SIM_BUGS_DIR:-$root/target/sim-bugs}
folder=$profile
[ "$profile" = dev ] && folder=debug
failed=0

if [ "${1:-}" = --fit ]; then
    for patch in simulation/bugs/*.patch; do
        if ! patch --dry-run --quiet --strip=1 --fuzz=0 <"$patch" >/dev/null; then
            echo "$patch does not fit the code any more" >&2
            failed=1
        fi
    done
    exit $failed
fi

mkdir -p "$copy/tree" "$copy/target"
# Dependencies that are built already, as links: nothing writes into a file that cargo made.
if [ ! -d "$copy/target/$folder" ] && [ -d "target/$folder" ]; then
    cp -al "target/$folder" "$copy/target/$folder"
    # What is ours is built anew: it lies elsewhere there. And a lock is of one folder.
    rm -f "$copy/target/$folder/simulation" "$copy/target/$folder/.cargo-lock"
fi

# The tree as it is here, also what is not committed. Files that did not change keep their time.
fresh() { git ls-files -z --cached --others --exclude-standard | mirror; }

mirror() {
    local list
    list=$(mktemp)
    cat >"$list"
    python3 - "$list" "$copy/tree" <<'PYTHON'
import filecmp, os, shutil, sys
names = [n for n in open(sys.argv[1], "rb").read().decode().split("\0") if n and os.path.isfile(n)]
tree, wanted = sys.argv[2], set(names)
for folder, _, files in os.walk(tree):
    for file in files:
        path = os.path.join(folder, file)
        if os.path.relpath(path, tree) not in wanted:
            os.remove(path)
for name in names:
    there = os.path.join(tree, name)
    if not os.path.exists(there) or not filecmp.cmp(name, there, shallow=False):
        os.makedirs(os.path.dirname(there) or ".", exist_ok=True)
        shutil.copy(name, there)
PYTHON
    rm -f "$list"
}

plant() {
    local patch=$1 name found
    name=$(basename "$patch" .patch)
    fresh
    if ! patch --quiet --strip=1 --fuzz=0 --no-backup-if-mismatch --directory="$copy/tree" <"$patch" >/dev/null; then
        echo "$name: the patch does not apply any more"
        return 1
    fi
    if ! CARGO_TARGET_DIR=$copy/target cargo build --manifest-path "$copy/tree/Cargo.toml" --locked \
        --quiet --profile "$profile" -p simulation 2>"$copy/build.log"; then
        echo "$name: does not compile"
        tail -5 "$copy/build.log"
        return 1
    fi
    # What is wrong may also be found by a panic: that is a finding too.
    "$copy/target/$folder/simulation" --hunt --seeds "$seeds" >"$copy/$name.log" 2>&1
    found=$(grep -m1 -o 'seed [0-9]* FAILED.*' "$copy/$name.log")
    if [ -z "$found" ]; then
        found=$(grep -m1 'panicked' "$copy/$name.log")
    fi
    if [ -z "$found" ]; then
        echo "$name: NOT FOUND in $seeds seeds"
        return 1
    fi
    echo "$name: ${found:0:160}"
}

for patch in simulation/bugs/*"${BUG:-}"*.patch; do
    plant "$patch" || failed=1
done
exit $failed
