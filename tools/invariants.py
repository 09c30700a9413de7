#!/usr/bin/env python3
"""docs/invariants.md says which test shows what: fails if one of them does not exist."""

import functools
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/invariants.md"
NAMED = re.compile(r"`([\w/-]+\.rs)::(\w+)`")


@functools.cache
def tests(file):
    """The names of the tests of a file: functions with an attribute for it, and scenarios."""
    text = (ROOT / file).read_text()
    attribute = r"#\[(?:tokio::)?test[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:async )?fn (\w+)"
    property_test = r"fn (\w+)\([^)]*\bin\b" if "proptest!" in text else r"(?!)"
    scenario = r'\(\s*"(\w+)",' if "/scenarios/" in file else r"(?!)"
    return {name for pattern in (attribute, property_test, scenario) for name in re.findall(pattern, text)}


def missing():
    """What the page names and nobody has."""
    for file, name in NAMED.findall(PAGE.read_text()):
        if not (ROOT / file).is_file():
            yield f"{file} is not there"
        elif name not in tests(file):
            yield f"{file} has no test {name}"


def main():
    """Lists them."""
    problems = list(missing())
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "---" not in line]
    bare = [row for row in rows if not NAMED.search(row) and not row.rstrip().endswith("| shown by |") and "not yet" not in row]
    for problem in problems + [f"no test is named for: {row}" for row in bare]:
        print(f"tools/invariants.py: {problem}", file=sys.stderr)
    sys.exit(bool(problems or bare))


main()
