"""A judge that can't fail judges nothing: each system is damaged in turn, and the same questions must see it."""

from contextlib import contextmanager

import reading
from facts import Report, database_url, judge_copy, judge_log, judge_status

SOMEBODYS = "Somebody-else-1"


def self_test(course):
    """Damages one system of a course after the other, which has been found right before."""
    bench = course.bench
    quiet = Report(quiet=True)
    for name in bench.names:
        _judge_again(quiet, course, name)
    course.fact("the judge sees no damage where there is none", "; ".join(text for _, text, _ in quiet.wrong))
    for name, (system, what, value) in _damages(bench).items():
        bench.sandbox.set(system, bench.name, what, value)
        _must_be_wrong(course, f"{name}, {what}", name)
    _damage_by_hand(course)
    with _must_see(course, "pgrotate status") as report:
        judge_status(report, bench, "")


def self_test_of_the_log(course):
    """A fault of the log stream would be anybody's who asks next, so nobody else may be asking."""
    bench = course.bench
    bench.sandbox.fault(path_contains="/logstream", kind="status", when="before", status=500)
    with _must_see(course, "the log stream, 500") as report:
        judge_log(report, bench, "nobody", bench.log(course.starts()))


def _damages(bench):
    """By the name of a reading: what the control interface does to it."""
    copy = f"{bench.name.upper()}_DATABASE_URL"
    url = {"secret": "database-url", "value": database_url(bench, SOMEBODYS)}
    retention = {"pointer": "/properties/backup/backupRetentionDays", "value": 7}
    return {
        "azure_key_vault:database-url": ("key_vault", "value", url),
        "azure_key_vault:postgres-admin-password": ("key_vault", "disabled", "postgres-admin-password"),
        "azure_app_service:DATABASE_URL": ("app_service", "setting", {"name": "LOG_LEVEL", "value": "debug"}),
        f"github_actions:{copy}": ("github", "removed", copy),
        f"onepassword:MindWell {bench.name} Postgres Admin": ("onepassword", "password", SOMEBODYS),
        "server": ("resource_manager", "property", retention),
    }


def _damage_by_hand(course):
    """What has no control interface: a file, and AWS's own protocol."""
    with open(course.bench.sandbox.env_file(course.name), "a") as file:
        file.write("ANOTHER=line\n")
    _must_be_wrong(course, "the env file, another line", f"env_file:{course.name}.env")
    course.bench.aws("secretsmanager", "put-secret-value", "--secret-id", course.aws.split(":")[1],
                     "--secret-string", SOMEBODYS)
    _must_be_wrong(course, "AWS, another value", course.aws)


def _must_be_wrong(course, damage, name):
    with _must_see(course, damage) as report:
        _judge_again(report, course, name)


def _judge_again(report, course, name):
    found = reading.read(course.bench, name)
    before = (course.password, course.readings[name])
    judge_copy(report, course.bench, "nobody", name, course.password, before, found)


@contextmanager
def _must_see(course, damage):
    """A fact: what is judged in here is found wrong."""
    report = Report(quiet=True)
    yield report
    course.fact(f"the judge sees damage: {damage}", None if report.wrong else "all its facts are still right")
