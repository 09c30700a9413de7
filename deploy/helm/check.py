#!/usr/bin/env python3
"""Checks the chart: lints it, renders it with the values of testdata/*.values.yaml and compares with the goldens
beside them, and sees that those of *.wrong.yaml are refused, and how. Then what `atoll install control-plane` prints.
BLESS=1 writes all that instead.
"""
import difflib, os, re, subprocess, sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
DATA = f"{HERE}/testdata"
# What `atoll install control-plane` prints, from the values of printed/.
PRINTED = f"{ROOT}/cli/src/install/control_plane/manifests"
BLESS = os.environ.get("BLESS") == "1"


def helm(*arguments):
    return subprocess.run([HELM, *arguments], cwd=HERE, capture_output=True, text=True)


def rendered(values, namespace="kuma-system"):
    done = helm("template", "atoll", "atoll", "--namespace", namespace, "--values", values)
    if done.returncode:
        raise SystemExit(f"{values} is refused:\n{done.stderr}")
    return done.stdout


def refusal(values):
    done = helm("template", "atoll", "atoll", "--values", values)
    # Where the chart is differs from machine to machine, and Helm warns of the link to the definitions.
    lines = [line.strip() for line in done.stderr.splitlines() if line.startswith("Error") or "at '" in line]
    # It names them in another order each time.
    return "\n".join(sorted(lines, key=lambda line: line.removeprefix("Error"))) + "\n" if done.returncode else "nothing is wrong\n"


def compared(path, made):
    """What differs; nothing if it is blessed."""
    if BLESS:
        with open(path, "w") as file:
            file.write(made)
        return ""
    golden = open(path).read() if os.path.exists(path) else ""
    lines = difflib.unified_diff(golden.splitlines(), made.splitlines(), os.path.relpath(path, ROOT), "now", lineterm="", n=1)
    return "\n".join(lines)


def goldens():
    for name in sorted(os.listdir(DATA)):
        stem, _, ending = name.partition(".")
        if ending == "values.yaml":
            yield compared(f"{DATA}/{stem}.golden.yaml", rendered(f"{DATA}/{name}"))
            linted = helm("lint", "--strict", "--values", f"{DATA}/{name}", "atoll")
            yield linted.stdout + linted.stderr if linted.returncode else ""
        elif ending == "wrong.yaml":
            yield compared(f"{DATA}/{stem}.message.txt", refusal(f"{DATA}/{name}"))


def printed():
    for name in sorted(os.listdir(f"{HERE}/printed")):
        made = rendered(f"{HERE}/printed/{name}", "the-namespace")
        head = "# Made of deploy/helm/atoll by `make gen`.\n"
        yield compared(f"{PRINTED}/{name.partition('.')[0]}.yaml", head + made)


def facts():
    """What else must agree with the chart."""
    def field(path, pattern):
        return re.search(pattern, open(f"{ROOT}/{path}").read(), re.MULTILINE)[1]

    version = field("Cargo.toml", r'^version = "(.*)"')
    for key in ("version", "appVersion"):
        if (found := field("deploy/helm/atoll/Chart.yaml", rf"^{key}: (.*)$")) != version:
            yield f"Chart.yaml: {key} is {found}, but Cargo.toml has {version}"
    access = open(f"{ROOT}/deploy/helm/atoll/access.yaml").read()
    lists = re.findall(r"\[kuma\.io\]\n *resources: \[([^]]*)\]", access)
    allowed = {name for each in lists for name in re.findall(r"\w+", each)}
    kinds = {name.partition(".")[0] for name in os.listdir(f"{ROOT}/deploy/crds")}
    for name in sorted(allowed ^ kinds):
        yield f"access.yaml: {name} is " + ("a kind and missing" if name in kinds else "no kind")


def main():
    found = [difference for each in (goldens(), printed(), facts()) for difference in each if difference]
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    HELM = subprocess.run([f"{ROOT}/tools/helm.sh"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    sys.exit(main())
