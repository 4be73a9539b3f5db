"""What the service is told by its environment.

`DATABASE_URL` holds a password, so nothing here repeats it: an error names what is wrong with the
URL and never quotes any part of it. SQLAlchemy's own parse errors do quote: with an unescaped `@`
and `:` in the password it takes the rest for a port and prints it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

VARIABLE = "DATABASE_URL"
DRIVER = "postgresql+asyncpg"

# libpq's words for `sslmode`, which asyncpg understands under the name `ssl`.
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


class SettingsError(Exception):
    """The environment does not describe a usable database; the text never holds a secret."""


@dataclass(frozen=True)
class Settings:
    """The settings of one process. The URL stays out of the representation."""

    database_url: URL = field(repr=False)


def load(environment: Mapping[str, str] = os.environ) -> Settings:
    """Reads the settings of this process."""
    text = environment.get(VARIABLE, "").strip()
    if not text:
        raise SettingsError(f"{VARIABLE} is not set")
    return Settings(database_url=translate_sslmode(parse(text)))


def parse(text: str) -> URL:
    """Parses the URL, and on failure says so without showing it."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # `from None`: the cause's text may hold a piece of the password.
        raise SettingsError(
            f"{VARIABLE} is not a database URL; is the password in it percent-encoded?"
        ) from None
    if url.drivername != DRIVER:
        raise SettingsError(f"{VARIABLE} must begin with {DRIVER}://")
    if "@" in (url.host or ""):
        # SQLAlchemy ends the password at the first @; the rest would go out in a DNS query.
        raise SettingsError(f"{VARIABLE}: an @ in the password must be percent-encoded")
    if not url.host or not url.database or not url.username:
        raise SettingsError(f"{VARIABLE} must name a user, a host and a database")
    return url


def translate_sslmode(url: URL) -> URL:
    """Turns libpq's `sslmode=` into asyncpg's `ssl=`.

    SQLAlchemy hands every query parameter to asyncpg as a keyword argument, and asyncpg knows
    `ssl`, not `sslmode`: the URL of our runbook would fail before the first packet. Translating
    is this application's own choice, so that one URL serves psql, the runbook and the service.
    """
    if "sslmode" not in url.query:
        return url
    if "ssl" in url.query:
        raise SettingsError(f"{VARIABLE} has both sslmode= and ssl=; keep one")
    mode = url.query["sslmode"]
    if mode not in SSL_MODES:
        raise SettingsError(f"{VARIABLE}: sslmode must be one of {', '.join(SSL_MODES)}")
    return url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
