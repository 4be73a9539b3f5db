"""One rotation after the other in one sandbox, by hand and by pgrotate in turn, while the application is asked on and on.

A way of rotating is a row of the table: a command, and the configuration that it works with. Another strategy is one
more row in `WAYS`, with what it needs done once before (`prepare`).
"""

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from measured import Broken, Measured

from sandbox import BIN
from tools import Bench

HERE = Path(__file__).resolve().parent
ENVIRONMENT = "dev"
TICKET = "mindwell/ops#12"
# Requests to the application in a second, of which one in five logs in afresh: what two busy cores bear beside az.
RATE = 60
# The load is on for this long before the tool begins and after all is settled.
AROUND_S = 1.0
# Two starts follow on a change by hand and a restart; an application takes seconds to start.
SETTLED_WITHIN_S = 90


@dataclass
class Way:
    """A way of rotating."""

    name: str
    # How often the application is started by it.
    starts: int = 1
    # Its `[authority]` table, where it is not the example's.
    authority: str = ""
    # Beside the tables, at the top of the configuration.
    settings: str = ""
    # What pgrotate is asked for once, before the first round.
    prepare: tuple = ()
    by_hand: bool = False
    # So many requests have to be sent over all its rounds, and none may fail.
    lossless_of: int = 0
    # Rounds, where it is another number than the others'.
    rounds: int = 0


HAND = Way("the runbook by hand", starts=2, by_hand=True)
RESOURCE_MANAGER = Way("in_place, resource manager")
SQL = Way("in_place, SQL", authority='kind = "postgres"\n')
WAYS = [HAND, RESOURCE_MANAGER, SQL]
# 20,000 requests over five rounds: each is followed by as much load as that takes.
IN_TURN = Way("alternating", authority='kind = "postgres"\n', settings='strategy = "alternating"\n',
              prepare=("roles", "prepare", ENVIRONMENT, "--apply"), lossless_of=20_000, rounds=5)


@dataclass
class Round:
    """What one rotation took, and what the application's users noticed of it."""

    way: Way
    began: float
    wall: float
    cpu: float
    # Without what it started; nothing is known of a shell's.
    own_cpu: float
    memory: float
    load: dict
    requests: list
    pace: dict
    # When each step began and how long it took, by the tool's own words: seconds from the tool's beginning.
    steps: list = field(default_factory=list)

    @property
    def window(self):
        """Seconds without a successful fresh login."""
        return self.load["without_login_ms"]["longest"] / 1000

    @property
    def offset(self):
        """Seconds from the load's beginning to the tool's."""
        return self.began - moment(self.load["began"])


class Course:
    """All rounds in one sandbox."""

    def __init__(self, sandbox, folder):
        self.sandbox, self.folder = sandbox, folder
        self.bench = Bench(sandbox, ENVIRONMENT, folder)
        self.bench.sign_in()
        self.bench.take_over_sign_in(self.bench)
        self.url = sandbox.state(ENVIRONMENT)["app"]["url"]

    def command(self, way):
        """The command and its whole environment."""
        if way.by_hand:
            given = {name: value for name, value in self.sandbox.credentials.items() if name.startswith("ONCALL")}
            changelog = {"CHANGELOG": str(self.folder / "changelog.md")}
            return [HERE / "operator.sh", ENVIRONMENT], self.bench.environment | given | changelog
        return self.pgrotate(way, "--json", "rotate", ENVIRONMENT, "--ticket", TICKET)

    def pgrotate(self, way, *arguments):
        """A command of pgrotate with the configuration of a way, and with nothing of what the tools were given.

        Each way has a state folder of its own: in one, another authority than at the last success is a reason to stop.
        """
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.bench.home), "LANG": "C.UTF-8",
                       "PGROTATE_STATE_DIR": str(self.folder / f"state-{slug(way)}"), "PGROTATE_CONFIG": str(self.config(way))}
        return [BIN / "pgrotate", *arguments], environment

    def config(self, way):
        text = self.sandbox.config.read_text()
        if way.authority:
            text, found = re.subn(r"^\[authority\]\n(?:(?!\[).*\n)*", f"[authority]\n{way.authority}\n", text, flags=re.M)
            assert found == 1, "the sandbox's configuration has no [authority]"
        path = self.sandbox.config.with_name(f"{slug(way)}.toml")
        path.write_text(way.settings + text)
        return path

    def measured(self, way):
        command, environment = self.command(way)
        return Measured(command, environment, self.folder / "out")

    def prepare(self, way):
        command, environment = self.pgrotate(way, *way.prepare)
        Measured(command, environment, self.folder / "out")

    def round(self, way, lossless=False):
        """One rotation under load, which goes on until enough has been asked."""
        last = max((request["seq"] for request in self.sandbox.requests()), default=0)
        starts = self.starts()
        lasts = way.lossless_of / way.rounds / RATE + AROUND_S if lossless else 0
        with Load(self.url) as load:
            over = time.monotonic() + lasts
            time.sleep(AROUND_S)
            measured = self.measured(way)
            requests = self.sandbox.requests(last)
            self.settle(starts + way.starts)
            time.sleep(max(AROUND_S, over - time.monotonic()))
        own = measured.memory if way.by_hand else measured.own_memory
        own_cpu = 0.0 if way.by_hand else measured.own_cpu
        return Round(way, measured.began_at, measured.wall, measured.cpu, own_cpu, own, load.summary, requests,
                     self.sandbox.pace(), steps_of(way, measured))

    def programs(self, way):
        """How many programs a rotation starts; strace slows it down, so nothing else is measured."""
        command, environment = self.command(way)
        starts, record = self.starts(), self.folder / "programs"
        traced = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=execve", "-e", "signal=none", "-o", record]
        Measured([*traced, *command], environment, self.folder / "out")
        self.settle(starts + way.starts)
        return sum(1 for line in record.read_text(errors="replace").splitlines() if line.endswith(" = 0"))

    def starts(self):
        return self.sandbox.state(ENVIRONMENT)["app"]["starts"]

    def settle(self, starts):
        """Waits for the starts that the rotation has caused, so that the next one begins in peace."""
        deadline = time.monotonic() + SETTLED_WITHIN_S
        while self.starts() < starts:
            if time.monotonic() > deadline:
                raise Broken(f"the application has not been started {starts} times")
            time.sleep(0.1)


class Load:
    """The application under load, for the length of a `with`."""

    def __init__(self, url):
        self.url = url

    def __enter__(self):
        self.process = subprocess.Popen([BIN / "pgrotate-sandbox", "load", "--url", self.url, "--rate", str(RATE)],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        told, _ = self.process.communicate()
        self.summary = json.loads(told)


def slug(way):
    return re.sub(r"[^a-z]+", "-", way.name.lower())


def moment(text):
    """A time as JSON has it, in seconds."""
    return datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00").timestamp()


def steps_of(way, measured):
    """(step, from, to) in seconds from the beginning, as the tool tells them."""
    if way.by_hand:
        pairs = [line.split() for line in measured.output.splitlines() if re.fullmatch(r"[\d.]+ \w+", line)]
        times = [(name, float(time) - measured.began_at) for time, name in pairs]
        return [(name, began, after[1]) for (name, began), after in zip(times, times[1:])]
    begun, steps = {}, []
    for line in measured.output.splitlines():
        event = json.loads(line) if line.startswith("{") else {}
        detail = event.get("detail") or {}
        key, at = (event.get("step"), event.get("sink") or detail.get("subject")), event.get("ts")
        if event.get("event") == "step_started":
            begun[key] = moment(at) - measured.began_at
        elif event.get("event") == "step_finished" and key in begun:
            steps.append(("/".join(str(part) for part in key if part), begun[key], moment(at) - measured.began_at))
    return steps
