"""What is judged, fact by fact, and how a fact is shown."""

import json
import threading
import time
from contextlib import contextmanager

from reading import differences
from tools import masked

# What a writer changes beside the password: exactly these, so a change that is missing is a difference too.
KNOWN = {
    # A new version of a Key Vault secret inherits nothing, and az gives it only what its caller names: content type
    # and tags of the version before are gone, and a tag of az's own is there.
    "the tools": {
        "azure_key_vault:postgres-admin-password": {"contentType", "tags.file-encoding", "tags.owner", "tags.rotation"},
        "azure_key_vault:database-url": {"tags.file-encoding", "tags.owner", "tags.rotation"},
        # The first version becomes the previous one.
        "aws_secrets_manager": {"described.VersionIdsToStages"},
    },
    # pgrotate takes over what the version before had. Its marks are how a repeated step finds what it has done.
    "pgrotate": {
        "azure_key_vault": {"tags.pgrotate-run"},
        "onepassword": {"fields.pgrotate previous", "fields.pgrotate run"},
    },
    # By hand a version's mark of a run goes: no run has made it.
    "a person": {
        "azure_key_vault": {"tags.pgrotate-run"},
        "onepassword": {"fields.pgrotate previous.value", "fields.pgrotate run", "fields.pgrotate previous run"},
    },
    # The self-test looks again at what nobody has written.
    "nobody": {},
}

# Where one write is one version. An env file has none, and pgrotate's staging writes its item more than once.
VERSIONED = ("azure_key_vault", "azure_app_service", "github_actions", "aws_secrets_manager")

# What a failed login, or a URL that a driver doesn't take, looks like in the log. The runbook's own words come first;
# neither PostgreSQL nor a driver prints them.
LOGGED_FAILURES = (
    "invalid password", "password authentication failed", "InvalidPasswordError", "28P01", "no pg_hba.conf entry",
    "not permitted to log in", "unexpected keyword argument", "invalid interpolation syntax", "the migration failed",
    "Traceback",
)


class Report:
    """The facts so far, and how long each part took. A quiet one collects without showing."""

    def __init__(self, quiet=False):
        self.quiet, self.count, self.wrong = quiet, 0, []
        self._began, self._parts = time.monotonic(), []
        self._lock = threading.Lock()

    @contextmanager
    def part(self, name):
        """Takes the time of a part."""
        began = time.monotonic()
        yield
        self._parts.append((name, time.monotonic() - began))

    def show_end(self):
        """The sum, the times, and once more what isn't so."""
        print(f"\n{self.count} facts, {len(self.wrong)} of them not so")
        for name, seconds in [*self._parts, ("all", time.monotonic() - self._began)]:
            print(f"  {seconds:5.0f} s  {name}")
        for environment, text, problem in self.wrong:
            print(f"  {environment}: {text}: {problem}")

    def fact(self, environment, text, problem=None):
        """One fact: right if there is no problem with it."""
        problem = masked(str(problem)) if problem else None
        with self._lock:
            self.count += 1
            if problem:
                self.wrong.append((environment, text, problem))
            if not self.quiet:
                end = f": {problem}" if problem else ""
                print(f"{'NOT ok' if problem else 'ok':<6}  {environment:<8} {text}{end}", flush=True)


def difference_of(expected, found):
    """The problem with a value that should be another; shown as it is, so not for secrets."""
    return None if expected == found else f"{found!r} instead of {expected!r}"


def database_url(bench, password):
    """The runbook's URL."""
    return f"postgresql+asyncpg://mindwelladmin:{password}@{bench.postgres_host}/mindwell_app?sslmode=require"


def judge_copy(report, bench, who, name, password, before, after):
    """What a reading shows after a round: the new password, and nothing else that differs from before."""
    reading, (previous, old) = after, before
    kind = name.split(":")[0]
    if kind != "server":
        holds_url = name.upper().endswith(("DATABASE_URL", "DATABASE-URL", ".ENV"))
        expected = database_url(bench, password) if holds_url else password
        problem = reading.shown.get("unreadable") or (None if reading.value == expected else "it holds something else")
        report.fact(bench.name, f"{name}: holds the password that {who} wrote", problem)
    changes = differences(old.form(previous), reading.form(password))
    known = KNOWN[who].get(name, KNOWN[who].get(kind, set()))
    surprises = [f"{path}: {one!r} became {other!r}" for path, one, other in changes if path not in known]
    surprises += [f"{path} is as it was" for path in sorted(known - {path for path, *_ in changes})]
    report.fact(bench.name, f"{name}: {who} changed nothing else", "; ".join(surprises))


def judge_versions(report, bench, who, name, before, after):
    """Each write of a copy makes exactly one version; a copy without versions counts its changes."""
    made = after["copies"][name]["versions"] - before["copies"][name]["versions"]
    report.fact(bench.name, f"{name}: {who} made one version", difference_of(1, made))


def judge_log(report, bench, who, lines):
    """What the log stream shows of the application's latest start."""
    starts = [place for place, line in enumerate(lines) if "Context impl PostgresqlImpl" in line]
    latest = lines[starts[-1]:] if starts else []
    problem = None
    if not any("Application startup complete." in line for line in latest):
        problem = f"no start of the application among {len(lines)} lines: {' / '.join(lines[-3:])}"
    failures = [line for line in latest if any(words.lower() in line.lower() for words in LOGGED_FAILURES)]
    if failures:
        problem = f"it shows {failures[0]!r}"
    report.fact(bench.name, f"az webapp log tail: Alembic and no failed login since {who} restarted it", problem)


def judge_status(report, bench, text, stale=()):
    """pgrotate's own judgement: everything current, but what it can't see and what is meant to be stale."""
    finished = bench.pgrotate("--json", "status", bench.name)
    report.fact(bench.name, f"pgrotate status {text}: exit status", difference_of(4 if stale else 0, finished.code))
    try:
        status = json.loads(finished.out)
    except ValueError:
        report.fact(bench.name, f"pgrotate status {text}: prints a status", finished.err or "nothing")
        return
    found = {copy["id"]: copy["state"] for copy in status["copies"]} | {"server": status["server"]["state"]}
    expected = {name: "unseen" if name.startswith("github") else "current" for name in bench.names}
    expected |= dict.fromkeys(stale, "stale")
    surprises = [f"{path} is {other}, not {one}" for path, one, other in differences(expected, found)]
    stale_too = f", {' and '.join(stale)} stale" if stale else ""
    said = f"server and every copy current, GitHub's unseen{stale_too}"
    report.fact(bench.name, f"pgrotate status {text}: {said}", "; ".join(surprises))


def judge_requests(report, who, requests):
    """Every request was served. Key Vault's 401 is the challenge that tools wait for."""
    bad = [request for request in requests
           if request["status"] >= 400 and (request["system"], request["status"]) != ("key_vault", 401)]
    shown = [f"{request['system']} {request['method']} {request['path'].split('?')[0]} {request['status']}"
             for request in bad]
    report.fact("all", f"the sandbox served each of the {len(requests)} requests of {who}", "; ".join(shown[:5]))
