"""What cargo knows about the workspace, for the checks beside this file."""
import json, subprocess

# Where the programs run.
TARGETS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu")


def members():
    """The packages of the workspace."""
    return json.loads(_cargo("metadata", "--no-deps", "--format-version=1"))["packages"]


def graph():
    """Name, version and licence of every package that is compiled for one of the targets, ours included.

    Not from `cargo metadata`, which lists packages that only a feature nobody asked for would bring.
    """
    command = ("tree", "--workspace", "--prefix=none", "--format={p}|{l}")
    lines = {line for target in TARGETS for line in _cargo(*command, f"--target={target}").splitlines()}
    packages = set()
    for line in filter(None, lines):
        package, licence = line.removesuffix(" (*)").split("|")
        name, version = package.split(" ")[:2]
        packages.add((name, version.removeprefix("v"), licence))
    return sorted(packages)


def _cargo(*arguments):
    return subprocess.check_output(["cargo", *arguments, "--locked"], text=True)
