"""Tells Alembic how to reach the database, with the same settings as the service.

The URL never goes through `config.set_main_option`: Alembic's configuration expands `%`, so a
percent-encoded password would end in a ValueError that prints the whole URL.
"""

import asyncio
from logging.config import fileConfig

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app import settings
from app.db import connect_args
from app.models import Base

if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)


def migrate(connection: Connection) -> None:
    """Runs whatever the command asks for on one connection."""
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()


async def online() -> None:
    """Connects once, without a pool, and closes what it opened."""
    try:
        url = settings.load().database_url
    except settings.SettingsError as error:
        raise CommandError(str(error)) from None  # one line instead of a traceback
    engine = create_async_engine(
        url, poolclass=NullPool, hide_parameters=True, connect_args=connect_args("mindwell migrations")
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


def offline() -> None:
    """Prints SQL (`--sql`), for which the dialect is enough and no URL is needed."""
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    offline()
else:
    asyncio.run(online())
