"""What `pgrotate runbook` writes is carried out as it is written: by bash, with the vendors' own tools.

Beside what it leaves behind, what each of its programs was given is judged: no password among anybody's arguments, and
in the environment of nobody but psql, which takes it from nowhere else.
"""

import re
import shlex
import shutil
import urllib.parse

from facts import judge_copy, judge_status, judge_versions, VERSIONED
from tools import keep_secret, run

TICKET = "mindwell/ops#12"
# What the script calls beside the tools that it names itself.
SMALL = ["cat", "cp", "date", "grep", "id", "mktemp", "mv", "readlink", "rm", "sleep", "wc"]
# Nothing else may have a password in its environment.
MAY_KNOW = {"psql"}


def by_hand(course):
    """One environment rotated by the script, with the password on its stdin."""
    bench = course.bench
    # Both languages have the same commands; the Russian text is the one that nobody else carries out.
    script = bench.home / "by-hand.sh"
    script.write_text(bench.pgrotate("runbook", bench.name, "--lang", "ru").checked().out)
    old, new = course.password, bench.step("new_password", "").checked().out.strip()
    keep_secret(new, _encoded(new))
    before, readings = bench.sandbox.state(course.name), course.readings
    environment, record = _recording(bench, script)
    # In a session of its own, so without a terminal: then nothing waits for Enter.
    finished = run("the runbook by hand", ["setsid", "--wait", "bash", str(script)], environment, f"{old}\n{new}\n")
    course.fact("pgrotate runbook: the script reaches its end", None if finished.code == 0 else finished.err[-1500:])
    course.previous, course.password = old, new
    course.note()
    _judge_copies(course, readings, before)
    _judge_record(course, record.read_text(), [old, new])
    shown = finished.out + finished.err
    course.fact("pgrotate runbook: the script shows no password", "it does" if _found(shown, [old, new]) else None)
    judge_status(course.report, bench, "after the runbook by hand")
    ids = [course.readings[f"azure_key_vault:{name}"].shown.get("id", "none")
           for name in ["postgres-admin-password", "database-url"]]
    told = " ".join(comment["body"] for comment in course.state["comments"])
    missing = [one for one in ids if one not in told]
    course.fact("pgrotate runbook: the ticket names the new Secret Ids", "; ".join(missing))


def _recording(bench, script):
    """The tools' environment, in which every program notes what it was given before it is itself."""
    folder, record = bench.home / "recording", bench.home / "recorded"
    folder.mkdir()
    record.touch()
    named = re.search(r"^tools=\((.*)\)$", script.read_text(), re.MULTILINE).group(1)
    path = bench.environment["PATH"]
    for name in [*shlex.split(named), *SMALL]:
        real = shutil.which(name, path=path)
        environment = ":" if name in MAY_KNOW else "env"
        wrapper = folder / name
        wrapper.write_text(f"#!/bin/sh\n{{ echo \"{name} $*\"; {environment}; }} >>{shlex.quote(str(record))}\n"
                           f"exec {shlex.quote(real)} \"$@\"\n")
        wrapper.chmod(0o755)
    given = {name: value for name, value in bench.sandbox.credentials.items() if name.startswith(("JIRA", "ONCALL"))}
    return bench.environment | given | {"PATH": f"{folder}:{path}", "TICKET": TICKET, "OPERATOR": "judge"}, record


def _judge_copies(course, readings, before):
    encoded = _encoded(course.password)
    urls = [name for name in course.readings if name.upper().endswith(("DATABASE_URL", "DATABASE-URL", ".ENV"))]
    raw = [name for name in urls if f":{encoded}@" not in (course.readings[name].value or "")]
    course.fact("pgrotate runbook: in every URL the password is percent-encoded", ", ".join(raw))
    for name, after in course.readings.items():
        # What is compared from here on is all the rest.
        after.shown, after.value = _as_typed([after.shown, after.value], encoded, course.password)
        judge_copy(course.report, course.bench, "a person", name, course.password, (course.previous, readings[name]),
                   after)
        if name.startswith(VERSIONED):
            judge_versions(course.report, course.bench, "a person", name, before, course.state)
    held = course.state["postgres"]["password"]
    course.fact("the server takes the password that a person typed", None if held == course.password else "another one")


def _judge_record(course, record, passwords):
    expected = ["az postgres flexible-server update", "az keyvault secret set", "gh secret set", "aws secretsmanager put"]
    missing = [text for text in expected if text not in record]
    course.fact("pgrotate runbook: what its programs were given is on record", "; ".join(missing))
    course.fact("pgrotate runbook: no password in arguments, and in psql's environment alone",
                "there is one" if _found(record, passwords) else None)


def _encoded(password):
    return urllib.parse.quote(password, safe="")


def _as_typed(shown, encoded, password):
    """The same with the password in the place of its percent-encoded form."""
    match shown:
        case dict():
            return {name: _as_typed(value, encoded, password) for name, value in shown.items()}
        case list():
            return [_as_typed(value, encoded, password) for value in shown]
        case str():
            return shown.replace(encoded, password)
    return shown


def _found(text, passwords):
    """Whether a password is in a text, as it is or as a URL has it."""
    forms = [form for password in passwords for form in (password, _encoded(password))]
    return any(form in text for form in forms)
