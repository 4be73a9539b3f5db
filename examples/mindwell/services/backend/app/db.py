"""Two ways to the database: a pool for requests, and fresh connections for the health check.

PostgreSQL checks a password only when a connection opens. Connections of the pool outlive a
change of the password, so a pool can't tell whether the service could still log in; only a
connection made for the question can.
"""

import asyncio

from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

# A health check that hangs is an answer too late: whoever asked has gone.
CONNECT_TIMEOUT_S = 5
PROBE_TIMEOUT_S = 8
# What the server's administrator sees in pg_stat_activity.
NAME = "mindwell-api"
PROBE_NAME = "mindwell-api probe"


def connect_args(name: str) -> dict[str, object]:
    """What asyncpg is told beside the URL."""
    return {"timeout": CONNECT_TIMEOUT_S, "server_settings": {"application_name": name}}


class Database:
    """The engines of one process."""

    def __init__(self, url: URL) -> None:
        # hide_parameters: an SQL error must not carry what people wrote into the log.
        self._pooled: AsyncEngine = create_async_engine(
            url,
            pool_size=5,
            max_overflow=5,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args=connect_args(NAME),
        )
        self._fresh: AsyncEngine = create_async_engine(
            url,
            poolclass=NullPool,
            hide_parameters=True,
            connect_args=connect_args(PROBE_NAME),
        )
        self.sessions = async_sessionmaker(self._pooled, expire_on_commit=False)

    async def warm(self) -> None:
        """Opens the pool's first connection, so that the first request need not; raises what the driver raised."""
        async with self._pooled.connect() as connection:
            await connection.execute(text("select 1"))

    async def probe(self) -> None:
        """Logs in afresh and runs a query; raises what the driver raised."""
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            async with self._fresh.connect() as connection:
                await connection.execute(text("select 1"))

    async def close(self) -> None:
        """Closes every connection."""
        await self._pooled.dispose()
        await self._fresh.dispose()
