#!/usr/bin/env python3
"""Runs cargo-mutants and holds its survivors against docs/mutants.md; `make mutants` calls this.

    scripts/mutants.py [OPTIONS OF CARGO-MUTANTS]

It fails when a mutant survives that has no reason there, when one that has a reason is caught after all, and when one
with a reason does not exist any more. Only what was run is judged: `--file`, `--re` and `--shard` may narrow it.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "docs" / "mutants.md"
OUT = ROOT / "target" / "mutants.out"
# A line of the list: the mutant's name as cargo-mutants writes it, without line and column, and the reason.
LINE = re.compile(r"^- `(?P<mutant>[^`]+)`: (?P<reason>.+)$", re.MULTILINE)
# Everything built, nothing tested; and the statuses that only say that something survived or took too long.
JUDGED_HERE = (0, 2, 3)


def plain(name: str) -> str:
    """A mutant's name without its line and column, which every edit above it moves."""
    return re.sub(r"^([^:]+\.rs):\d+:\d+: ", r"\1: ", name.strip())


def names(file: str) -> set[str]:
    path = OUT / file
    return {plain(line) for line in path.read_text().splitlines() if line.strip()} if path.exists() else set()


def show(title: str, mutants: set[str]) -> bool:
    if mutants:
        print(f"\n{title}:", *sorted(mutants), sep="\n  ")
    return bool(mutants)


def main() -> int:
    OUT.parent.mkdir(exist_ok=True)
    command = ["cargo", "mutants", "--output", str(OUT.parent), "--no-shuffle", "--colors", "never", *sys.argv[1:]]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status not in JUDGED_HERE:
        return status
    listed = subprocess.run(["cargo", "mutants", "--list"], cwd=ROOT, check=True, capture_output=True, text=True)
    every = {plain(line) for line in listed.stdout.splitlines()}
    explained = {found["mutant"] for found in LINE.finditer(LIST.read_text())}
    survived, caught = names("missed.txt"), names("caught.txt") | names("timeout.txt")

    bad = [
        show("survived, and nothing says why (test it, or give the reason in docs/mutants.md)", survived - explained),
        show("caught, so its line in docs/mutants.md can go", (explained & caught) - survived),
        show("in docs/mutants.md, and no mutant any more", explained - every),
    ]
    print(f"\n{len(caught)} kinds of mutants caught, {len(survived & explained)} explained, of {len(every)} in all")
    return 1 if any(bad) else 0


if __name__ == "__main__":
    sys.exit(main())
