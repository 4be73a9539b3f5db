"""The service itself: its endpoints, and what happens when it starts and stops."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import Annotated

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app import __version__, settings
from app.db import Database
from app.models import NOTE_LENGTH_MAX, Mood

log = logging.getLogger("mindwell")

# How long the first request may be kept waiting for the first connection.
WARM_TIMEOUT_S = 3


def configure_logging() -> None:
    """Sends our lines to stdout; uvicorn has handlers of its own."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


async def warm(database: Database) -> None:
    """Has a connection ready for the first request. Where there can be none, the health check says why."""
    try:
        await database.warm()
    except Exception:
        log.warning("no connection to the database yet")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Reads the environment and builds the engines; a wrong environment ends the process here.

    It waits a moment for a login and does not need one: an instance that starts before its database is reachable
    should say so on /api/healthz, not die in a loop.
    """
    configure_logging()
    database = Database(settings.load().database_url)
    app.state.database = database
    app.state.started_at = datetime.now(timezone.utc)
    warming = asyncio.create_task(warm(database))
    await asyncio.wait({warming}, timeout=WARM_TIMEOUT_S)
    log.info("mindwell-api %s started", __version__)
    yield
    warming.cancel()
    await database.close()
    log.info("mindwell-api stopped")


app = FastAPI(title="MindWell API", version=__version__, lifespan=lifespan)


async def session(request: Request) -> AsyncIterator[AsyncSession]:
    """Lends a session from the pool for the time of one request."""
    async with request.app.state.database.sessions() as opened:
        yield opened


Session = Annotated[AsyncSession, Depends(session)]


class NewMood(BaseModel):
    """A mood as a client sends it."""

    model_config = ConfigDict(extra="forbid")

    score: int = Field(ge=1, le=5)
    note: str | None = Field(default=None, max_length=NOTE_LENGTH_MAX)


class RecordedMood(BaseModel):
    """A mood as it is stored."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    score: int
    note: str | None
    recorded_at: datetime


@app.get("/api/healthz")
async def healthz(request: Request) -> JSONResponse:
    """Says whether this instance can log in to its database now, and since when it has been running.

    The answer goes to anybody, so it holds no reason; the log does, as the driver printed it.
    """
    started_at = request.app.state.started_at.isoformat()
    try:
        await request.app.state.database.probe()
    except Exception:  # whatever went wrong, the answer is the same
        log.exception("health check: no fresh connection to the database")
        return JSONResponse({"status": "error", "database": "error", "started_at": started_at}, 503)
    return JSONResponse({"status": "ok", "database": "ok", "started_at": started_at})


@app.get("/api/version")
async def version(request: Request) -> dict[str, str]:
    """Says which release is running."""
    return {"version": __version__, "started_at": request.app.state.started_at.isoformat()}


@app.get("/api/moods")
async def list_moods(
    opened: Session, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> list[RecordedMood]:
    """Lists the latest moods, newest first."""
    rows = await opened.scalars(select(Mood).order_by(Mood.recorded_at.desc(), Mood.id.desc()).limit(limit))
    return [RecordedMood.model_validate(row) for row in rows]


@app.post("/api/moods", status_code=201)
async def record_mood(mood: NewMood, opened: Session) -> RecordedMood:
    """Stores one mood."""
    row = Mood(score=mood.score, note=mood.note)
    opened.add(row)
    await opened.commit()
    await opened.refresh(row)
    return RecordedMood.model_validate(row)
