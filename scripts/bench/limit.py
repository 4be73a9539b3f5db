"""The limit: what any tool has to wait for, whatever it is written in and however many requests it sends at once.

Computed from the sandbox's own record of a run. Of its requests those count that no order of steps can leave out, and
each waits only for those whose result it needs or that must have happened before it is allowed to. The longest way
through them, by the waits that the sandbox puts before each, is the limit. docs/benchmark.md has the rule in words.
"""

from dataclasses import dataclass

# The way through the database is no request that the sandbox records, and nobody waits artificially there.
INSTANT = 0.0


@dataclass(frozen=True)
class Link:
    """A request that can't be left out, those that come before it, and what is waited for beside its answer."""

    name: str
    system: str
    method: str
    path: str
    after: tuple = ()
    # What follows on it: "operation" or "app_start".
    then: str = ""


# A link that a run's record has no request for is skipped, and what waits for it waits for what is before it. So an
# authority by SQL leaves out the change by the resource manager, and who has a token leaves out the sign-in.
LINKS = [
    Link("sign in to Azure", "sign_in", "POST", "/oauth2/v2.0/token"),
    Link("find the vault of record", "onepassword", "GET", "/v1/vaults?"),
    Link("find the item", "onepassword", "GET", "/items?", after=("find the vault of record",)),
    Link("save the new password", "onepassword", "PATCH|PUT", "/items/", after=("find the item",)),
    Link("change the server", "resource_manager", "PATCH", "/flexibleServers/",
         after=("sign in to Azure", "save the new password"), then="operation"),
    Link("read the settings", "resource_manager", "POST", "/config/appsettings/list", after=("sign in to Azure",)),
    Link("write the settings", "resource_manager", "PUT", "/config/appsettings",
         after=("read the settings", "change the server"), then="app_start"),
    Link("read the log", "app_service", "GET", "/logstream", after=("write the settings",)),
    Link("write the secrets", "key_vault", "PUT", "/secrets/", after=("sign in to Azure", "change the server")),
    Link("GitHub's public key", "github", "GET", "/public-key"),
    Link("write GitHub's secrets", "github", "PUT", "/actions/secrets/",
         after=("GitHub's public key", "change the server")),
    Link("write AWS's secret", "aws", "POST", "/", after=("change the server",)),
    Link("tell the ticket", "github", "POST", "/comments",
         after=("read the log", "write the secrets", "write GitHub's secrets", "write AWS's secret")),
    Link("tell on-call", "webhook", "POST", "/",
         after=("read the log", "write the secrets", "write GitHub's secrets", "write AWS's secret")),
]


@dataclass(frozen=True)
class Limit:
    """The longest chain, its length by the sandbox's waits alone, and what the application itself took to start."""

    chain: tuple
    injected: float
    start: float

    @property
    def seconds(self):
        return self.injected + self.start


def limit_of(requests, pace, start):
    """The limit of a run: its requests, the sandbox's waits, and how long the application's process took to start."""
    waits = {"": INSTANT, "operation": pace["operation_ms"] / 1000, "app_start": pace["app_start_ms"] / 1000}
    ends = {}
    for link in LINKS:
        before = max((ends[name] for name in link.after), default=(0.0, 0.0, ()))
        if any(matches(link, request) for request in requests):
            took = pace["request_ms"] / 1000 + waits[link.then]
            own = start if link.then == "app_start" else 0.0
            before = (before[0] + took + own, before[1] + own, (*before[2], link.name))
        ends[link.name] = before
    longest, own, chain = max(ends.values())
    return Limit(chain, longest - own, own)


def matches(link, request):
    return (request["system"] == link.system and request["method"] in link.method.split("|")
            and link.path in request["path"])
