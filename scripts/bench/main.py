#!/usr/bin/env python3
"""What `make bench` runs: pgrotate alone, then side by side with the runbook by hand, in sandboxes of this run.

    scripts/bench/main.py [single] [beside] [--rounds N] [--latency instant|typical] [--chart FILE]

Without a word, both parts. docs/benchmark.md says what the figures mean.
"""

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from measured import Broken

import fleet
import single
from chart import chart
from report import judge_targets, markdown, show_limits, show_parts, table, text
from rounds import ENVIRONMENT, IN_TURN, RATE, WAYS, Course

from sandbox import Failed, Sandbox
from tools import check_set_up, end_all, masked

HOSTS = [f"kv-mindwell-{ENVIRONMENT}.vault.localhost", f"mindwell-{ENVIRONMENT}-api.scm.localhost"]


def beside(latencies, number, counted):
    """All rounds, by latency."""
    check_set_up(HOSTS)
    return {latency: rounds_at(latency, number, counted) for latency in latencies}


def rounds_at(latency, number, counted):
    """The rounds in one sandbox, the ways in turn, with what they show."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgrotate-bench-")))
        sandbox = stack.enter_context(Sandbox(folder, [ENVIRONMENT], latency))
        course, rounds = Course(sandbox, folder), []
        for turn in range(number):
            for way in WAYS:
                rounds.append(course.round(way))
                progress(latency, turn, rounds[-1])
        counting = counted and latency == "instant"
        programs = {way.name: course.programs(way) for way in WAYS} if counting else {}
        # Last: from then on two roles take turns, and the other ways know one.
        course.prepare(IN_TURN)
        for turn in range(IN_TURN.rounds if latency == "typical" else number):
            rounds.append(course.round(IN_TURN, latency == "typical"))
            progress(latency, turn, rounds[-1])
        if counting:
            programs[IN_TURN.name] = course.programs(IN_TURN)
    print(f"\n{latency} latency, medians of {number} rounds each; in brackets how many times as much the hand needs, or has\n")
    lines = table(rounds, programs)
    print(text(lines))
    print(f"\n{markdown(lines)}")
    show_parts(rounds)
    show_limits(rounds)
    return rounds


def progress(latency, turn, one):
    load = one.load
    print(f"  {latency} {turn + 1}: {one.way.name}: {one.wall:.2f} s, CPU {one.cpu:.2f} s, without a login {one.window:.2f} s, "
          f"{load['failed']} of {load['sent']} failed, the load late by at most {load['late_ms']:.0f} ms, "
          f"machine load {os.getloadavg()[0]:.1f}", flush=True)


def main():
    arguments = argparse.ArgumentParser(description="Measures pgrotate, and the runbook by hand beside it.")
    arguments.add_argument("parts", nargs="*", choices=["single", "beside", []], help="both, if none is named")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--latency", choices=["instant", "typical"], help="both, if none is named")
    arguments.add_argument("--chart", type=Path, help="where the chart of the typical rounds goes")
    asked = arguments.parse_args()
    print(f"pgrotate bench, {datetime.now():%Y-%m-%d}, {os.cpu_count()} cores, machine load {os.getloadavg()[0]:.1f}, "
          f"{RATE} requests a second to the application\n", flush=True)
    try:
        if not asked.parts or "beside" in asked.parts:
            latencies = [asked.latency] if asked.latency else ["instant", "typical"]
            rounds = beside(latencies, asked.rounds, True)
            print()
            judge_targets(rounds)
            if asked.chart:
                last = latencies[-1]
                asked.chart.write_text(chart(rounds[last], f"Failed requests to the application, at {last} latency"))
        if not asked.parts or "single" in asked.parts:
            print()
            single.measure()
            fleet.measure()
    except (Broken, Failed) as error:
        end_all()
        sys.exit(f"error: {masked(str(error))}")


if __name__ == "__main__":
    main()
