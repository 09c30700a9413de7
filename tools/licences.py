#!/usr/bin/env python3
"""Fails on a dependency under a licence that we may not ship, and on one that is built in two versions."""
import collections, re, sys

from metadata import graph

ALLOWED = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "CDLA-Permissive-2.0", "ISC", "MIT", "MIT-0", "Unicode-3.0", "Zlib",
}
EXCEPTIONS = {"LLVM-exception"}

# Built twice, and which of our dependencies still needs the older one. An entry that is no longer
# needed is reported too, so that the list stays short.
TWICE = {
    "base64": "tonic, jsonwebtoken",
    "foldhash": "petgraph, at build time",
    "getrandom": "kube",
    "granit-parser": "kube",
    "hashbrown": "petgraph, at build time",
    "pem": "jsonwebtoken",
    "prettyplease": "tonic-build, at build time",
    "serde-saphyr": "kube",
    "syn": "prost-derive and others, at build time",
    "synstructure": "x509-parser, at build time",
    "tower-http": "reqwest",
    "unicode-width": "miette, at build time",
    "untrusted": "aws-lc-rs",
}


def allowed(expression):
    """Whether a licence expression (SPDX; a slash is an old spelling of OR) leaves us a choice we may take."""
    tokens = re.findall(r"[()]|[\w.+-]+", expression.replace("/", " OR "))

    def term():
        token = tokens.pop(0)
        if token != "(":
            return token in ALLOWED
        inside = either()
        tokens.pop(0)
        return inside

    def excepted():
        good = term()
        while tokens[:1] == ["WITH"]:
            tokens.pop(0)
            good &= tokens.pop(0) in EXCEPTIONS
        return good

    def both():
        good = excepted()
        while tokens[:1] == ["AND"]:
            tokens.pop(0)
            good &= excepted()
        return good

    def either():
        good = both()
        while tokens[:1] == ["OR"]:
            tokens.pop(0)
            good |= both()
        return good

    good = either()
    return good and not tokens


def complaints(packages):
    versions = collections.defaultdict(set)
    for name, version, licence in packages:
        versions[name].add(version)
        if not licence:
            yield f"{name} {version} names no licence"
        elif not allowed(licence):
            yield f"{name} {version} is under {licence}"
    for name, built in versions.items():
        if len(built) > 1 and name not in TWICE:
            yield f"{name} is built in {len(built)} versions: {', '.join(sorted(built))}"
    for name in TWICE:
        if len(versions[name]) < 2:
            yield f"{name} is built once now: take it off the list in tools/licences.py"


def main():
    found = sorted(complaints(graph()))
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
