#!/usr/bin/env python3
"""Runs cargo-mutants and holds its survivors against docs/mutants.md; `make mutants` calls this.

    scripts/mutants.py [--file FILE] [--re PATTERN] [OTHER OPTIONS OF CARGO-MUTANTS]

A mutant climbs a ladder: the quick tests of its own package come first, and only who survives them meets the slower
ones. So most cost a few seconds, which is what building the package takes.

It fails when a mutant survives that has no reason there, when one that has a reason is caught after all, and when one
with a reason does not exist any more. Only what was run is judged: `--file` and `--re` may narrow it.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "docs" / "mutants.md"
OUT = ROOT / "target" / "mutants"
# A line of the list: the mutant's name as cargo-mutants writes it, without line and column, and the reason.
LINE = re.compile(r"^- `(?P<mutant>[^`]+)`: (?P<reason>.+)$", re.MULTILINE)
# Everything built, nothing tested; and the statuses that only say that something survived or took too long.
JUDGED_HERE = (0, 2, 3)
# What a rotation means, and where a journal lives. The providers' promises are their vendors' quirks, which the contract
# tests and `make fidelity` hold; mutants of them would each want a server.
# By package: the tests that a mutant of it meets, rung by rung, as packages and options of `cargo test`. The
# documentation's examples only compile, so they are on none.
SIMULATED = (["pgrotate-sim"], ["--test", "promises"])
ON_DISK = ("evidence", "failing_disk", "full_disk", "layouts", "opening", "rollback", "sqlite")
QUICK = [name for test in ON_DISK for name in ("--test", test)]
LADDERS = {
    "pgrotate-core": [(["pgrotate-core"], ["--lib", "--test", "faults"]), SIMULATED, (["pgrotate-engine"], QUICK)],
    "pgrotate-engine": [(["pgrotate-engine"], ["--lib", *QUICK]), (["pgrotate-engine"], ["--test", "damage"])],
}
# Nobody debugs a mutant; and a target folder that outlives the copy of the tree on which
# cargo-mutants works keeps the dependencies built.
ENVIRONMENT = {**os.environ, "CARGO_PROFILE_DEV_DEBUG": "none", "CARGO_TARGET_DIR": str(OUT / "built")}


def plain(name: str) -> str:
    """A mutant's name without its line and column, which every edit above it moves."""
    return re.sub(r"^([^:]+\.rs):\d+:\d+: ", r"\1: ", name.strip())


def found(options: list[str]) -> list[dict]:
    """The mutants that there are."""
    command = ["cargo", "mutants", "--list", "--json", *(f"--package={package}" for package in LADDERS), *options]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout or "[]")


def unharmed(tests: tuple[list[str], list[str]]) -> int:
    """Sees these tests pass where nothing is broken, and gives the seconds after which one takes too long.

    cargo-mutants would look so itself, but in the mutants' own package, which has no such tests.
    """
    packages, arguments = tests
    command = ["cargo", "test", "--quiet", *(f"--package={name}" for name in packages), *arguments]
    subprocess.run([*command, "--no-run"], cwd=ROOT, env=ENVIRONMENT, check=True)
    began = time.monotonic()
    subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True)
    return max(20, int(5 * (time.monotonic() - began)))


def rung(folder: Path, package: str, tests: tuple[list[str], list[str]], options: list[str]) -> dict[str, set[str]]:
    """Holds mutants against some tests; tells which of them were caught, survived, or do not compile."""
    packages, arguments = tests
    command = ["cargo", "mutants", "--output", str(folder), "--no-shuffle", "--colors", "never", "--package", package]
    command += [f"--test-package={name}" for name in packages]
    command += [f"--cargo-test-arg={argument}" for argument in arguments]
    if packages != [package]:
        command += ["--baseline=skip", f"--timeout={unharmed(tests)}"]
    folder.mkdir(parents=True, exist_ok=True)
    status = subprocess.run([*command, *options], cwd=ROOT, env=ENVIRONMENT, check=False).returncode
    if status not in JUDGED_HERE:
        sys.exit(status)

    def names(file: str) -> set[str]:
        path = folder / "mutants.out" / f"{file}.txt"
        return {line.strip() for line in path.read_text().splitlines() if line.strip()} if path.exists() else set()

    return {"caught": names("caught") | names("timeout"), "survived": names("missed"), "unviable": names("unviable")}


def climb(package: str, options: list[str]) -> dict[str, set[str]]:
    """Holds a package's mutants against one rung after the other."""
    result = {"caught": set(), "survived": set(), "unviable": set()}
    for number, tests in enumerate(LADDERS[package], 1):
        if number > 1:
            options = [f"--re=^{re.escape(name)}$" for name in sorted(result["survived"])]
            if not options:
                break
        met = rung(OUT / f"{package}-{number}", package, tests, options)
        # cargo-mutants tries mutants that delete a field whatever `--re` says: those that a lower rung has caught
        # are none of this rung's.
        judged = result["survived"] if number > 1 else set().union(*met.values())
        result["caught"] |= met["caught"] & judged
        result["unviable"] |= met["unviable"] & judged
        result["survived"] = met["survived"] & judged
    return result


def show(title: str, mutants: set[str]) -> bool:
    if mutants:
        print(f"\n{title}:", *sorted(mutants), sep="\n  ")
    return bool(mutants)


def tell(result: dict[str, set[str]]) -> None:
    """The figures by file, for docs/mutants.md."""
    counts = {kind: Counter(name.split(":")[0] for name in names) for kind, names in result.items()}
    print("\n| file | caught | survived | do not compile |\n| --- | --- | --- | --- |")
    for file in sorted(set().union(*counts.values())):
        print(f"| {file} |", " | ".join(str(counts[kind][file]) for kind in ("caught", "survived", "unviable")), "|")


def main() -> int:
    wanted = {mutant["package"] for mutant in found(sys.argv[1:])}
    result = {"caught": set(), "survived": set(), "unviable": set()}
    for package in sorted(wanted):
        for kind, names in climb(package, sys.argv[1:]).items():
            result[kind] |= names
    tell(result)
    every = {plain(mutant["name"]) for mutant in found([])}
    explained = {line["mutant"] for line in LINE.finditer(LIST.read_text())}
    survived, caught = ({plain(name) for name in result[kind]} for kind in ("survived", "caught"))

    bad = [
        show("survived, and nothing says why (test it, or give the reason in docs/mutants.md)", survived - explained),
        show("caught, so its line in docs/mutants.md can go", (explained & caught) - survived),
        show("in docs/mutants.md, and no mutant any more", explained - every),
    ]
    print(f"\n{len(caught)} kinds of mutants caught, {len(survived & explained)} explained, of {len(every)} in all")
    return 1 if any(bad) else 0


if __name__ == "__main__":
    sys.exit(main())
