#!/usr/bin/env python3
"""Every limit on one page: docs/limits.md, made of the constants and what their comments say.

Fails if the page is not what the constants say now; with --write, writes it."""

import ast
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/limits.md"

# Title, file, and the constants to show; all of the file if there are none.
SOURCES = [
    ("The REST API of global and zones", "api/src/limits.rs", []),
    ("Between global and its zones", "kds/src/limit.rs", []),
    ("Sessions and ADS of proxies, at their zone", "zone-cp/src/dataplanes/limits.rs", []),
    ("ADS", "xds/src/ads/session.rs", ["NAMES", "TEXT"]),
    ("What is kept of changes, in each mesh of a zone", "zone-cp/src/reconcile/effects.rs", []),
    ("TLS", "identity/src/tls/accept.rs", ["HANDSHAKE", "HANDSHAKES", "CONNECTIONS"]),
    ("Credentials of zones, at global", "global-cp/src/admission/guests.rs", ["CREDENTIALS", "INVENTED"]),
    ("Tokens", "identity/src/token/mod.rs", ["MAX_LENGTH"]),
    ("DNS", "dns/src/server.rs", ["CONNECTIONS", "IDLE"]),
    ("DNS of other names", "dns/src/forward.rs", ["WAITING"]),
]

HEAD = """# Limits

What others may ask of a process is bounded. These are constants in the code; `tools/limits.py --write` makes this page of them.
"""

CONST = re.compile(
    r"((?:^[ ]*///.*\n)+)^[ ]*(?:pub(?:\([^)]*\))? )?const ([A-Z_]+): (\w+)(?:<\w+>)? =\s*([^;]+);",
    re.M,
)
UNITS = {"from_millis": "ms", "from_secs": "s", "from_hours": "h"}


def number(text):
    """The value of an expression of whole numbers."""
    tree = ast.parse(text.strip(), mode="eval")
    allowed = (ast.Expression, ast.BinOp, ast.Constant, ast.Mult, ast.LShift)
    if not all(isinstance(node, allowed) for node in ast.walk(tree)):
        sys.exit(f"tools/limits.py: {text!r} is not a number")
    return eval(compile(tree, text, "eval"))  # Only numbers, * and <<, as just checked.


def value(text):
    """A value for people."""
    duration = re.fullmatch(r"Duration::(\w+)\((.*)\)", text.strip())
    if duration:
        amount, unit = number(duration[2]), UNITS[duration[1]]
        if unit == "s" and amount % 86400 == 0:
            amount, unit = amount // 86400, "days"
        return f"{amount} {unit}"
    amount = number(text)
    for size, unit in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if amount >= max(size, 4096) and amount % size == 0:
            return f"{amount} ({amount // size} {unit})"
    return str(amount)


def rows(path, names):
    """The constants of a file, as rows of a table."""
    found = {}
    for comment, name, _, text in CONST.findall((ROOT / path).read_text()):
        words = " ".join(line.strip().removeprefix("///").strip() for line in comment.splitlines())
        found[name] = f"| {words} | {value(text)} | `{name}` |" if not names or name in names else ""
    missing = [name for name in names if name not in found]
    if missing:
        sys.exit(f"tools/limits.py: {path} has no {', '.join(missing)} with a comment")
    return [row for row in found.values() if row]


def page():
    """The whole page."""
    parts = [HEAD]
    for title, path, names in SOURCES:
        table = "\n".join(rows(path, names))
        parts.append(f"## {title}\n\n`{path}`\n\n| what | limit | name |\n|---|---|---|\n{table}\n")
    return "\n".join(parts)


def main():
    """Checks the page, or writes it."""
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page())
    elif not PAGE.exists() or PAGE.read_text() != page():
        sys.exit("docs/limits.md is not what the constants say: tools/limits.py --write")


main()
