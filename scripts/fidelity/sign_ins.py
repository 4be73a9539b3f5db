"""pgrotate signs in as the person at this machine would: by the logins that az, gh and aws keep in their own files.

Beside those it has only the variables of the systems without a tool here. Whatever it then says has to be what it says
with a variable for each; and signed out of all three it must not find a way, or the rest would prove nothing.
"""

import json

from facts import difference_of
from reading import differences

# How a copy's name begins that a tool's login leads to, and what pgrotate says where nobody is logged in.
WAYS = {"azure": "az login", "github": "gh auth login", "aws": "AWS_ACCESS_KEY_ID"}


def judge_sign_ins(report, bench):
    """`status` and `check` by the tools' logins."""
    for command, subject in {"status": _status, "check": _check}.items():
        expected = subject(bench.pgrotate("--json", command, bench.name)) | {"exit": 0}
        found = subject(bench.pgrotate_by_logins("--json", command, bench.name))
        surprises = [f"{path}: {other!r}, with variables {one!r}" for path, one, other in differences(expected, found)]
        report.fact(bench.name, f"pgrotate {command} by the logins of az, gh and aws: as with variables",
                    "; ".join(surprises))


def judge_signed_out(report, bench):
    """Nobody is logged in: every copy that a tool's login leads to is out of reach, and the way in is named."""
    nobody = str(bench.home / "nobody")
    # Without the last a machine in Azure would sign in by its own identity.
    found = _check(bench.pgrotate_by_logins(
        "--json", "check", bench.name, AZURE_CONFIG_DIR=nobody, GH_CONFIG_DIR=nobody, AWS_CONFIG_FILE=nobody,
        AWS_SHARED_CREDENTIALS_FILE=nobody, AZURE_TOKEN_CREDENTIALS="AzureCliCredential"))
    mends = {finding["subject"]: finding.get("mend", "") for finding in found["findings"].values()
             if finding["severity"] == "blocks"}
    wrong = [name for name in bench.names if WAYS.get(name.split("_")[0], "") not in mends.get(name, "")]
    text = "pgrotate check finds no way where az, gh and aws are signed out, and says how to sign in"
    report.fact(bench.name, text, f"not so for {', '.join(wrong)}" if wrong else difference_of(1, found["exit"]))


def _status(finished):
    return {"exit": finished.code} | _first_line(finished)


def _check(finished):
    """Without the time; the systems answer side by side, so the findings' order says nothing."""
    event = _first_line(finished)
    findings = event.get("detail", {}).get("findings", [])
    return {"exit": finished.code, "event": event.get("event"), "unreadable": event.get("unreadable"),
            "findings": {f"{finding['subject']}, {finding['what']}": finding for finding in findings}}


def _first_line(finished):
    try:
        return json.loads(finished.out.splitlines()[0])
    except (ValueError, IndexError):
        return {"unreadable": finished.err or "nothing"}
