#!/usr/bin/env python3
"""What `make fidelity` runs: the vendors' own tools carry out the runbook in a sandbox and judge pgrotate.

1. az, aws, gh, alembic and curl do steps 1 to 6 of the runbook, as it is written, and read back what they wrote.
2. `pgrotate status` judges what the tools wrote.
3. pgrotate rotates, and the same tools read back what it wrote: the form has to be theirs.
4. pgrotate signs in by the tools' own logins, and sees what it sees with a variable for each credential.
5. What `pgrotate runbook` writes is carried out as it is written, in one environment.
6. Meanwhile, in another one, one system after the other is damaged: a judge that can't fail would judge nothing.

One line for each fact, at the end the time of each part, and exit status 1 if a fact isn't so. No password is ever
printed.
"""

import datetime
import signal
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import reading
import tools
from by_hand import by_hand
from facts import (VERSIONED, Report, difference_of, judge_copy, judge_log, judge_requests, judge_status,
                   judge_versions)
from sandbox import Failed, Sandbox
from self_test import self_test, self_test_of_the_log
from sign_ins import judge_sign_ins, judge_signed_out
from tools import Bench, check_set_up, keep_secret, masked

ENVIRONMENTS = ["dev", "staging"]
TICKET = "mindwell/ops#12"

# The names that az makes of a vault's and of an application's; the Makefile has the system know them.
HOSTS = [name for environment in ENVIRONMENTS
         for name in (f"kv-mindwell-{environment}.vault.localhost", f"mindwell-{environment}-api.scm.localhost")]

# An application takes seconds to start; two starts follow on a change of its settings and a restart.
STARTED_WITHIN_S = 60


class Course:
    """One environment's way through the judgement."""

    def __init__(self, report, bench):
        self.report, self.bench, self.name = report, bench, bench.name
        self.aws = f"aws_secrets_manager:mindwell/{self.name}/postgres/admin-password"
        self.password = bench.sandbox.state(self.name)["postgres"]["password"]
        keep_secret(self.password)

    def fact(self, text, problem=None):
        self.report.fact(self.name, text, problem)

    def step(self, step, text=None):
        """A step of the runbook, which is a fact of its own; what follows makes no sense without it."""
        self.bench.step(step, self.password).checked()
        self.fact(text or f"the runbook's {step.replace('_', ' ')} works as it is written")

    def tools_round(self):
        """The runbook by the tools."""
        bench, self.began = self.bench, now()
        self.note()
        self.previous, self.password = self.password, bench.step("new_password", "").checked().out.strip()
        keep_secret(self.password)
        self.step("before_you_start")
        self.first_step()
        for step in ["step_2", "step_3", "step_4"]:
            self.step(step)
        if self.name == ENVIRONMENTS[-1]:
            judge_status(self.report, bench, "before step 5", stale=[self.aws])
        self.step("step_5")
        self.settle()
        self.step("step_6_alembic")
        self.step("step_6_healthz")
        self.judge("the tools")
        judge_status(self.report, bench, "after the runbook")

    def first_step(self):
        """az waits for the operation itself; what it then shows is the server's state."""
        state = self.bench.step("step_1", self.password).checked().out.strip()
        self.fact("the runbook's step 1 works as it is written")
        self.fact("az postgres flexible-server show --query state", difference_of("Ready", state))

    def note(self):
        """Keeps what is there before a round."""
        self.state = self.bench.sandbox.state(self.name)
        self.readings = {name: reading.read(self.bench, name) for name in self.bench.names}

    def settle(self):
        """Waits until the application has been started for the change of its settings and for the restart."""
        deadline = time.monotonic() + STARTED_WITHIN_S
        while self.starts() < self.state["app"]["starts"] + 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        made = self.starts() - self.state["app"]["starts"]
        self.fact("App Service: the change and the restart are two starts", difference_of(2, made))

    def starts(self):
        return self.bench.sandbox.state(self.name)["app"]["starts"]

    def pgrotate_round(self, began):
        """What pgrotate has just done, seen by the tools."""
        self.previous, self.began = self.password, began
        item = reading.read(self.bench, f"onepassword:MindWell {self.name} Postgres Admin")
        self.password = item.value or ""
        keep_secret(self.password)
        self.fact("1Password: holds a new password", "it is the old one" if self.password == self.previous else None)
        self.step("alembic_current", "Alembic logs in with pgrotate's password")
        self.step("step_6_healthz", "curl finds the application healthy after pgrotate")
        self.judge("pgrotate")
        judge_status(self.report, self.bench, "after pgrotate's own run")
        comments = " ".join(comment["body"] for comment in self.state["comments"])
        for name in ["postgres-admin-password", "database-url"]:
            secret_id = self.readings[f"azure_key_vault:{name}"].shown.get("id", "none")
            self.fact(f"the ticket names the Secret Id of {name} that az shows",
                      None if secret_id in comments else f"{secret_id} is not in {comments!r}")

    def judge(self, who):
        """After a round: every copy, the server, the application."""
        bench, report, before = self.bench, self.report, self.readings
        state = self.state
        self.note()
        self.judge_logins(who)
        for name, after in self.readings.items():
            judge_copy(report, bench, who, name, self.password, (self.previous, before[name]), after)
            if name.startswith(VERSIONED):
                judge_versions(report, bench, who, name, state, self.state)
            if name.startswith("github"):
                written = after.shown.get("listed") and after.changed >= self.began
                self.fact(f"{name}: gh lists it, written in this round",
                          None if written else f"written {after.changed}")
        judge_log(report, bench, who, bench.log(self.state["app"]["starts"]))
        archive = bench.downloaded_log()
        self.fact("az webapp log download: an archive with Alembic's log",
                  None if "alembic" in archive else "it is not there")

    def judge_logins(self, who):
        """What the server takes now: the control interface knows, and Alembic logs in."""
        held = self.state["postgres"]["password"]
        self.fact(f"the server takes the password of {who}", None if held == self.password else "it takes another one")
        refused = self.bench.step("alembic_current", self.previous)
        said = "password authentication failed" in refused.out + refused.err
        self.fact(f"the server refuses the password before, and Alembic says so ({who})",
                  None if refused.code != 0 and said else f"alembic ended with {refused.code}")

    def by_logins(self):
        """pgrotate with the tools' logins, then without."""
        judge_sign_ins(self.report, self.bench)
        judge_signed_out(self.report, self.bench)


def now():
    """The time in GitHub's resolution."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def on_all(report, pool, courses, name, act):
    """One part for each environment, side by side; true if all reached its end.

    What breaks off is a fact, and the others go on.
    """
    def guarded(course):
        try:
            act(course)
            return True
        except Failed as failure:
            report.fact(course.name, f"{name} reaches its end", failure)
        except Exception:  # a mistake of the judge itself
            report.fact(course.name, f"{name} reaches its end", traceback.format_exc())
        return False
    with report.part(name):
        return all(list(pool.map(guarded, courses)))


def sign_in(report, benches, sandbox):
    cloud = benches[0].sign_in()
    suffix = "." + sandbox.settings["azure"]["key_vault_suffix"]
    report.fact("all", "az cloud register takes over the Key Vault suffix that the cloud tells",
                difference_of(suffix, cloud["suffixes"]["keyvaultDns"]))
    report.fact("all", "az login --service-principal works")
    # The first one's settings are copied before it gets its own subscription.
    for bench in reversed(benches):
        bench.take_over_sign_in(benches[0])


def judge_ways_to_the_log(report, requests):
    """az reads the policy and goes its two ways: with its token, or with the publishing credentials."""
    for environment in ENVIRONMENTS:
        asked = any("publishingcredentials" in request["path"] and f"mindwell-{environment}-api" in request["path"]
                    for request in requests)
        basic = environment == ENVIRONMENTS[-1]
        way = "the publishing credentials" if basic else "a token"
        report.fact(environment, f"az opened the log stream with {way}", difference_of(basic, asked))


def judge_everything(report, folder):
    with ExitStack() as stack:
        with report.part("start of the sandbox"):
            sandbox = stack.enter_context(Sandbox(folder, ENVIRONMENTS))
        pool = stack.enter_context(ThreadPoolExecutor(len(ENVIRONMENTS)))
        keep_secret(*(value for name, value in sandbox.credentials.items()
                      if name.endswith(("TOKEN", "SECRET", "KEY", "URL"))))
        benches = [Bench(sandbox, environment, folder) for environment in ENVIRONMENTS]
        for bench in benches:
            bench.names = list(reading.systems(bench.name))
        with report.part("the tools' sign-in"):
            sign_in(report, benches, sandbox)
        sandbox.set("app_service", ENVIRONMENTS[-1], "basic_auth", True)
        courses = [Course(report, bench) for bench in benches]
        judge_rounds(report, pool, sandbox, courses)


def judge_rounds(report, pool, sandbox, courses):
    """What follows makes no sense where something broke off."""
    went = on_all(report, pool, courses, "the tools' round", Course.tools_round)
    of_tools = sandbox.requests()
    judge_requests(report, "the tools and of pgrotate's looks", of_tools)
    judge_ways_to_the_log(report, of_tools)
    if not went:
        return

    began = now()
    with report.part("pgrotate's rotation"):
        rotated = courses[0].bench.pgrotate("rotate", *ENVIRONMENTS, "--ticket", TICKET, "--yes")
    report.fact("all", f"pgrotate rotate {' '.join(ENVIRONMENTS)} --ticket {TICKET}",
                None if rotated.code == 0 else f"ended with {rotated.code}: {rotated.err[-2000:]}")
    if not on_all(report, pool, courses, "the look at pgrotate's round", lambda course: course.pgrotate_round(began)):
        return
    on_all(report, pool, courses, "pgrotate by the tools' logins", Course.by_logins)
    on_all(report, pool, courses, "the runbook by hand, and the self-test",
           lambda course: self_test(course) if course is courses[-1] else by_hand(course))
    on_all(report, pool, courses[-1:], "the self-test of the log", self_test_of_the_log)


def leave(number, _):
    """Ends what runs, so that no environment's part goes on, and leaves; the sandbox ends on the way out."""
    tools.end_all()
    sys.exit(128 + number)


def main():
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="pgrotate-fidelity-") as folder:
        try:
            check_set_up(HOSTS)
            judge_everything(report, Path(folder))
        except Failed as failure:
            sys.exit(f"error: {masked(str(failure))}")
        said = masked((Path(folder) / "sandbox.log").read_text().strip())
    report.show_end()
    if report.wrong and said:
        print(f"the sandbox's own log:\n{said[-4000:]}")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
