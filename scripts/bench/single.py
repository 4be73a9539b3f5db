"""pgrotate alone: single commands, recovery, concurrency, the journal and the evidence.

Figures of a shared machine are noisy: medians, and ratios within one run.
"""

import json
import os
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from measured import Broken, Measured

from sandbox import BIN, ROOT, Sandbox


class World:
    """A sandbox of one environment, and the program in it."""

    def __init__(self, sandbox, folder):
        self.sandbox, self.folder = sandbox, folder

    def environment(self, config=None):
        """The program's whole environment."""
        return surroundings(self.folder) | {"PGROTATE_CONFIG": str(config or self.sandbox.config)}

    def pgrotate(self, *arguments, config=None):
        return Measured([BIN / "pgrotate", *arguments], self.environment(config), self.folder / "out")


def surroundings(folder):
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "PGROTATE_STATE_DIR": str(folder / "state")}


@contextmanager
def world(latency):
    with tempfile.TemporaryDirectory(prefix="pgrotate-bench-") as folder:
        with Sandbox(Path(folder), ["dev"], latency) as sandbox:
            yield World(sandbox, Path(folder))


def row(name, value, target=""):
    print(f"{name:<58} {value:>12}  {target}", flush=True)


def milliseconds(values):
    return f"{statistics.median(values) * 1000:.1f} ms"


def small_commands():
    with world("instant") as here:
        versions = [here.pgrotate("--version") for _ in range(21)]
        row("--version, wall", milliseconds([run.wall for run in versions]), "under 10 ms")
        plans = [here.pgrotate("plan", "dev") for _ in range(11)]
        row("plan at instant latency, CPU", milliseconds([run.cpu for run in plans]), "under 100 ms")
        row("plan at instant latency, wall", milliseconds([run.wall for run in plans]))
        rotations, counts = [], []
        for _ in range(5):
            before = len(here.sandbox.requests())
            rotations.append(here.pgrotate("rotate", "dev"))
            counts.append(len(here.sandbox.requests()) - before)
        # The children (Alembic) are not pgrotate's own time; wait4 counts them with their parent, so they are
        # measured beside it by a configuration without that check.
        row("rotate at instant latency, CPU with Alembic's process", milliseconds([run.cpu for run in rotations]))
        row("rotate at instant latency, wall", milliseconds([run.wall for run in rotations]))
        row("requests of a rotation", f"{statistics.median(counts):.0f}")
        without = here.sandbox.config.with_name("without-alembic.toml")
        without.write_text(drop_command_check(here.sandbox.config.read_text()))
        bare = [here.pgrotate("rotate", "dev", config=without) for _ in range(5)]
        row("rotate at instant latency, CPU of pgrotate alone", milliseconds([run.cpu for run in bare]), "under 150 ms")
        row("rotate at instant latency, peak memory", f"{max(run.memory for run in bare):.1f} MB", "under 40 MB")


def drop_command_check(text):
    """The configuration without its `kind = "command"` check."""
    tables = text.split("\n[[")
    return "\n[[".join(table for table in tables if 'kind = "command"' not in table)


def recovery():
    """From the start of `resume` to its first request, after a death past the point of no return."""
    waits = []
    with world("instant") as here:
        sandbox = here.sandbox
        for _ in range(7):
            sandbox.fault(method="PUT", path_contains="/secrets/database-url", when="after", kind="hold")
            last = len(sandbox.requests())
            doomed = subprocess.Popen([BIN / "pgrotate", "rotate", "dev"], env=here.environment(),
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not any(request.get("held") for request in sandbox.requests(last)):
                if doomed.poll() is not None:
                    raise Broken("a rotation that was to be held has come to its end")
                time.sleep(0.01)
            doomed.kill()
            doomed.wait()
            sandbox.no_faults()
            last = len(sandbox.requests())
            resumed = here.pgrotate("resume")
            waits.append(moment(sandbox.requests(last)[0]["time"]).timestamp() - resumed.began_at)
    row("resume after SIGKILL, from its start to its first request", milliseconds(waits), "under 100 ms")


def moment(text):
    """A time as JSON has it."""
    return datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00")


def concurrency():
    with world("typical") as here:
        run = here.pgrotate("--json", "rotate", "dev")
        row("rotate at typical latency, wall", f"{run.wall:.2f} s")
        began, ended, alone = [], [], 0.0
        for line in run.output.splitlines():
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


def measure():
    row("what", "median", "target")
    small_commands()
    recovery()
    concurrency()
    journal()
    evidence()
