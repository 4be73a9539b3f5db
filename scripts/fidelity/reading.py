"""What the tools read back, system by system, and its form: the same with the passwords masked.

A form has no times, versions and ids, which differ from one write to the next, so two forms are equal exactly if the
two writers wrote the same kind of thing.
"""

import json

from tools import REPOSITORY, Failed

# What differs from write to write and says nothing about who wrote.
VOLATILE = {
    "ARN", "CreatedDate", "LastChangedDate", "LastAccessedDate", "VersionId", "created", "updated", "id", "version",
    "created_at", "updated_at", "createdAt", "updatedAt", "lastEditedBy", "started_at",
}


def systems(environment):
    """Every reading by the name it is judged under."""
    return {
        "server": _server,
        "azure_key_vault:postgres-admin-password": lambda bench: _secret(bench, "postgres-admin-password"),
        "azure_key_vault:database-url": lambda bench: _secret(bench, "database-url"),
        "azure_app_service:DATABASE_URL": _settings,
        f"github_actions:{environment.upper()}_DATABASE_URL": lambda bench: _github(bench, "DATABASE_URL"),
        f"github_actions:{environment.upper()}_POSTGRES_ADMIN_PASSWORD":
            lambda bench: _github(bench, "POSTGRES_ADMIN_PASSWORD"),
        f"env_file:{environment}.env": _env_file,
        f"aws_secrets_manager:mindwell/{environment}/postgres/admin-password": _aws,
        f"onepassword:MindWell {environment} Postgres Admin": _item,
    }


class Reading:
    """One system as a tool shows it."""

    def __init__(self, value, shown, changed=None):
        # The password or the URL in it, everything that the tool shows, and when it says it was written.
        self.value, self.shown, self.changed = value, shown, changed

    def form(self, password):
        return _masked(self.shown, password)


def read(bench, name):
    """Reads one system; a tool that fails is what the reading holds."""
    try:
        return systems(bench.name)[name](bench)
    except (Failed, OSError, ValueError, KeyError) as problem:
        return Reading(None, {"unreadable": str(problem)})


def _server(bench):
    shown = json.loads(bench.az("postgres", "flexible-server", "show", "--name", f"pgflex-mindwell-{bench.name}",
                                "--resource-group", f"rg-mindwell-{bench.name}"))
    return Reading(None, shown)


def _secret(bench, name):
    shown = json.loads(bench.az("keyvault", "secret", "show", "--vault-name", f"kv-mindwell-{bench.name}",
                                "--name", name))
    return Reading(shown["value"], shown, shown["attributes"]["created"])


def _settings(bench):
    listed = json.loads(bench.az("webapp", "config", "appsettings", "list", "--name", f"mindwell-{bench.name}-api",
                                 "--resource-group", f"rg-mindwell-{bench.name}"))
    shown = {setting.pop("name"): setting for setting in listed}
    return Reading(shown["DATABASE_URL"]["value"], shown)


def _github(bench, name):
    """GitHub never shows a value: its control interface does, which is the sandbox's and not GitHub's."""
    name = f"{bench.name.upper()}_{name}"
    listed = bench.gh("secret", "list", "--repo", REPOSITORY)
    shown = json.loads(bench.gh("api", f"repos/{REPOSITORY}/actions/secrets/{name}"))
    value = bench.sandbox.state(bench.name)["copies"].get(f"github_actions:{name}", {}).get("value")
    shown |= {"listed": any(line.split()[:1] == [name] for line in listed.splitlines()), "value": value}
    return Reading(value, shown, shown["updated_at"])


def _env_file(bench):
    path = bench.sandbox.env_file(bench.name)
    lines, about = path.read_text().splitlines(keepends=True), path.stat()
    [value] = [line.split("=", 1)[1].rstrip("\n") for line in lines if line.startswith("DATABASE_URL=")]
    return Reading(value, {"lines": lines, "mode": oct(about.st_mode), "owner": [about.st_uid, about.st_gid]})


def _aws(bench):
    secret = ["--secret-id", f"mindwell/{bench.name}/postgres/admin-password"]
    described = bench.aws("secretsmanager", "describe-secret", *secret)
    shown = bench.aws("secretsmanager", "get-secret-value", *secret)
    value, changed = shown["SecretString"], described["LastChangedDate"]
    current = described["VersionIdsToStages"][shown["VersionId"]]
    described["VersionIdsToStages"] = sorted(described["VersionIdsToStages"].values())
    return Reading(value, {"described": described, "shown": shown, "current": current}, changed)


def _item(bench):
    shown = json.loads(bench.step("item", "").checked().out)
    [password] = [field["value"] for field in shown["fields"] if field.get("purpose") == "PASSWORD"]
    shown["fields"] = {field["label"]: field for field in shown["fields"]}
    return Reading(password, shown, shown["updatedAt"])


def _masked(shown, password):
    match shown:
        case dict():
            kept = {name: value for name, value in shown.items() if name not in VOLATILE}
            return {name: _masked(value, password) for name, value in kept.items()}
        case list():
            return [_masked(value, password) for value in shown]
        case str():
            return shown.replace(password, "<password>")
    return shown


def differences(one, other, path=""):
    """Where two forms differ, each place with both sides; `absent` is no value that a tool shows."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for name in sorted(one.keys() | other.keys()):
            found += differences(one.get(name, "absent"), other.get(name, "absent"), f"{path}.{name}".lstrip("."))
        return found
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [each for place, pair in enumerate(zip(one, other)) for each in differences(*pair, f"{path}[{place}]")]
    return [] if one == other else [(path, one, other)]
