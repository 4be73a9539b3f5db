#!/usr/bin/env python3
"""Measures pgrotate on one sandbox in one run: what `make bench` prints.

Time and memory are those that the kernel counted for the finished process (wait4), so neither the sandbox nor this
script is in them. Figures of a shared machine are noisy: medians, and ratios within one run.
"""

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
WORLD = ROOT / "target" / "bench"


def surroundings(config):
    """The program's whole environment."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(WORLD), "PGROTATE_STATE_DIR": str(WORLD.with_suffix(".state"))}
    return environment | ({"PGROTATE_CONFIG": config} if config else {})


class Measured:
    """One finished call of the program."""

    def __init__(self, arguments, config=None):
        environment = surroundings(config)
        output = WORLD.with_suffix(".out")
        began = time.monotonic()
        with open(output, "wb") as out:
            pid = os.posix_spawn(BIN / "pgrotate", ["pgrotate", *arguments], environment,
                                 file_actions=[(os.POSIX_SPAWN_DUP2, out.fileno(), 1), (os.POSIX_SPAWN_DUP2, out.fileno(), 2)])
            _, status, usage = os.wait4(pid, 0)
        self.wall = time.monotonic() - began
        self.cpu = usage.ru_utime + usage.ru_stime
        self.memory = usage.ru_maxrss / 1024
        if os.waitstatus_to_exitcode(status) != 0:
            sys.exit(f"pgrotate {' '.join(arguments)} failed:\n{output.read_text()}")


class Sandbox:
    """A sandbox of one environment, for the length of a `with`."""

    def __init__(self, latency):
        self.latency = latency

    def __enter__(self):
        shutil.rmtree(WORLD, ignore_errors=True)
        shutil.rmtree(WORLD.with_suffix(".state"), ignore_errors=True)
        WORLD.mkdir(parents=True)
        self.process = subprocess.Popen(
            [BIN / "pgrotate-sandbox", "up", "--dir", WORLD / "world", "--env", "dev", "--latency", self.latency],
            stdout=subprocess.PIPE, stderr=open(WORLD.with_suffix(".log"), "wb"), stdin=subprocess.DEVNULL)
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the sandbox did not start; see {WORLD.with_suffix('.log')}")
        ready = json.loads(line)
        self.config, self.control = ready["config"], ready["control"]
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def requests(self, after=0):
        with urllib.request.urlopen(f"{self.control}/_sandbox/requests?after={after}") as answer:
            return json.load(answer)

    def fault(self, method, fault=None):
        body = json.dumps(fault).encode() if fault else None
        urllib.request.urlopen(urllib.request.Request(f"{self.control}/_sandbox/faults", body, method=method)).close()


def row(name, value, target=""):
    print(f"{name:<58} {value:>12}  {target}")


def milliseconds(values):
    return f"{statistics.median(values) * 1000:.1f} ms"


def small_commands():
    versions = [Measured(["--version"]) for _ in range(21)]
    row("--version, wall", milliseconds([run.wall for run in versions]), "under 10 ms")
    with Sandbox("instant") as sandbox:
        plans = [Measured(["plan", "dev"], sandbox.config) for _ in range(11)]
        row("plan at instant latency, CPU", milliseconds([run.cpu for run in plans]), "under 100 ms")
        row("plan at instant latency, wall", milliseconds([run.wall for run in plans]))
        rotations, counts = [], []
        for _ in range(5):
            before = len(sandbox.requests())
            rotations.append(Measured(["rotate", "dev"], sandbox.config))
            counts.append(len(sandbox.requests()) - before)
        # The children (Alembic) are not pgrotate's own time; wait4 counts them with their parent, so they are
        # measured beside it by a configuration without that check.
        row("rotate at instant latency, CPU with Alembic's process", milliseconds([run.cpu for run in rotations]))
        row("rotate at instant latency, wall", milliseconds([run.wall for run in rotations]))
        row("requests of a rotation", f"{statistics.median(counts):.0f}")
        without = Path(sandbox.config).with_name("without-alembic.toml")
        without.write_text(drop_command_check(Path(sandbox.config).read_text()))
        bare = [Measured(["rotate", "dev"], str(without)) for _ in range(5)]
        row("rotate at instant latency, CPU of pgrotate alone", milliseconds([run.cpu for run in bare]), "under 150 ms")
        row("rotate at instant latency, peak memory", f"{max(run.memory for run in bare):.1f} MB", "under 40 MB")


def drop_command_check(text):
    """The configuration without its `kind = "command"` check."""
    tables = text.split("\n[[")
    return "\n[[".join(table for table in tables if 'kind = "command"' not in table)


def recovery():
    """From the start of `resume` to its first request, after a death past the point of no return."""
    waits = []
    with Sandbox("instant") as sandbox:
        for _ in range(7):
            sandbox.fault("POST", {"method": "PUT", "path_contains": "/secrets/database-url", "when": "after", "kind": "hold"})
            last = len(sandbox.requests())
            doomed = subprocess.Popen([BIN / "pgrotate", "rotate", "dev"], env=surroundings(sandbox.config),
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not any(request.get("held") for request in sandbox.requests(last)):
                if doomed.poll() is not None:
                    sys.exit("a rotation that was to be held has come to its end")
                time.sleep(0.01)
            doomed.kill()
            doomed.wait()
            sandbox.fault("DELETE")
            last = len(sandbox.requests())
            began = time.time()
            Measured(["resume"], sandbox.config)
            waits.append(moment(sandbox.requests(last)[0]["time"]).timestamp() - began)
    row("resume after SIGKILL, from its start to its first request", milliseconds(waits), "under 100 ms")


def moment(text):
    """A time as JSON has it."""
    return datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00")


def concurrency():
    with Sandbox("typical") as sandbox:
        run = Measured(["--json", "rotate", "dev"], sandbox.config)
        row("rotate at typical latency, wall", f"{run.wall:.2f} s")
        began, ended, alone = [], [], 0.0
        for line in WORLD.with_suffix(".out").read_text().splitlines():
            if not line.startswith("{"):
                continue
            event = json.loads(line)
            if event.get("step") != "publish":
                continue
            at = moment(event["ts"])
            if event["event"] == "step_started":
                began.append(at)
            elif event["event"] == "step_finished":
                ended.append(at)
                alone += event["detail"]["elapsed_ms"] / 1000
        together = (max(ended) - min(began)).total_seconds()
        row(f"publishing {len(ended)} copies at typical latency, side by side", f"{together:.2f} s")
        row("the same steps one after the other", f"{alone:.2f} s", f"{alone / together:.1f} times as long")


def bench(package, name):
    """A bench of one of our crates, built."""
    built = subprocess.run(
        ["cargo", "bench", "-q", "-p", package, "--locked", "--bench", name, "--no-run", "--message-format=json"],
        cwd=ROOT, stdout=subprocess.PIPE, check=True)
    programs = [json.loads(line).get("executable") for line in built.stdout.splitlines()]
    return next(program for program in programs if program)


def evidence():
    done = subprocess.run([bench("pgrotate-evidence", "verify")], capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    row(f"evidence verified, entries a second ({figures['megabytes']:.0f} MB)", f"{figures['verified_per_second']:.0f}", "at least 200000")
    row("evidence gone through before an append, entries a second", f"{figures['surveyed_per_second']:.0f}")


def journal_bench(*arguments, traced=()):
    """What benches/journal.rs of the engine says, or its synchronous writes as strace counts them."""
    program = bench("pgrotate-engine", "journal")
    done = subprocess.run([*traced, program, *map(str, arguments)], capture_output=True, text=True, check=True)
    return done.stderr if traced else json.loads(done.stdout)


def synchronous_writes(steps):
    table = journal_bench("run", steps, traced=["strace", "-f", "-c", "-e", "trace=fsync,fdatasync,sync_file_range,msync"])
    rows = [line.split() for line in table.splitlines() if line.endswith("sync")]
    return sum(int(columns[3]) for columns in rows)


def journal():
    figures = journal_bench("measure")
    row("durable steps a second, one after the other", f"{figures['steps_per_second']:.0f}")
    row("the disk's own synchronous writes of a page a second", f"{figures['writes_per_second']:.0f}")
    row("the first to the second, write for write in turn", f"{figures['ratio']:.2f}", "at least 0.8")
    # The difference of two runs: taking the lease and giving it back are no steps.
    few, many = 600, 1600
    each = (synchronous_writes(many) - synchronous_writes(few)) / (many - few)
    row("synchronous writes a step, as strace counts them", f"{each:.3f}", "at most 1")
    row("opening a journal of 10,000 runs and finding the last", f"{journal_bench('recover', 10_000)['milliseconds']:.1f} ms", "under 100 ms")


def fleet(sizes=(1, 10, 100, 1_000, 10_000), at_once=64):
    """Many environments in one process (crates/sim/benches/fleet.rs): what they cost us over providers that answer at once,
    and how long the vendors' documented limits make them take, in virtual time."""
    built = subprocess.run(
        ["cargo", "bench", "-q", "--workspace", "--locked", "--bench", "fleet", "--no-run", "--message-format=json"],
        cwd=ROOT, stdout=subprocess.PIPE, check=True)
    artifacts = [json.loads(line) for line in built.stdout.splitlines()]
    program = next(own["executable"] for own in artifacts if own.get("executable") and own["target"]["name"] == "fleet")

    def one(*arguments):
        """What a process of its own says, and what the kernel counted for it."""
        said, says = os.pipe()
        began = time.monotonic()
        pid = os.posix_spawn(program, ["fleet", *map(str, arguments)], {"PATH": os.environ["PATH"]},
                             file_actions=[(os.POSIX_SPAWN_DUP2, says, 1)])
        os.close(says)
        with open(said, encoding="utf-8") as answer:
            text = answer.read()
        _, status, usage = os.wait4(pid, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            sys.exit(f"fleet {arguments} failed")
        return json.loads(text) | {"wall": time.monotonic() - began, "cpu": usage.ru_utime + usage.ru_stime}

    def duration(seconds):
        return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 3600:.2f} h"

    print(f"\na fleet over providers that answer at once, {at_once} at once (load average {os.getloadavg()[0]:.1f})\n")
    print(f"{'environments':>12} {'wall':>9} {'CPU':>9} {'wall each':>10} {'CPU each':>10} {'memory':>10} {'requests':>9} {'violations':>10}")
    own = [one("own", size, at_once) for size in sizes]
    for run in own:
        number = run["environments"]
        print(f"{number:>12} {run['wall']:>7.2f} s {run['cpu']:>7.2f} s {run['wall'] / number * 1000:>7.2f} ms "
              f"{run['cpu'] / number * 1000:>7.2f} ms {run['peak_kb'] / 1024:>7.1f} MB {run['requests']:>9} {run['violations']:>10}")
    fitted = [(math.log(run["environments"]), math.log(run["cpu"])) for run in own if run["environments"] >= 10]
    middle_n, middle_cpu = (statistics.mean(side) for side in zip(*fitted))
    exponent = (sum((n - middle_n) * (cpu - middle_cpu) for n, cpu in fitted)
                / sum((n - middle_n) ** 2 for n, _ in fitted))
    print()
    row(f"exponent of CPU over environments, 10 to {sizes[-1]:,}", f"{exponent:.3f}", "at most 1.05")
    row(f"peak memory of {sizes[-1]:,} environments", f"{own[-1]['peak_kb'] / 1024:.1f} MB", "under 200 MB")

    limited = []
    for shape, words in (("own", "a subscription each"), ("one", "one subscription for all")):
        print(f"\na fleet under the vendors' limits, in virtual time, {at_once} at once: {words}\n")
        print(f"{'environments':>12} {'took':>10} {'possible in':>12} {'times':>7} {'N x requests / rate':>20} {'longest run':>12}  the limit that counts")
        for size in sizes:
            run = one("limits", size, at_once, shape)
            limited.append(run)
            # Within what comes at once anyway, a fleet takes as long as its members do.
            times = f"{run['took_s'] / run['shortest_s']:.3f}" if run["shortest_s"] else "-"
            print(f"{size:>12} {duration(run['took_s']):>10} {duration(run['shortest_s']):>12} {times:>7} "
                  f"{duration(run['quotient_s']):>20} {duration(run['longest_run_s']):>12}  {run['limit']}")
    print()
    row("requests that were more than a vendor documents", sum(run["violations"] for run in own + limited), "none")


def main():
    print(f"pgrotate bench, {datetime.now():%Y-%m-%d}, {os.cpu_count()} cores\n")
    row("what", "median", "target")
    small_commands()
    recovery()
    concurrency()
    journal()
    evidence()
    fleet()


if __name__ == "__main__":
    main()
