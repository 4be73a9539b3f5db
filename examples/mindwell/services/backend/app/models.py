"""The tables. Migrations are written by hand; `alembic check` proves that both agree."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Identity, Index, SmallInteger, String, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NOTE_LENGTH_MAX = 500


class Base(DeclarativeBase):
    """What Alembic compares the database with."""


class Mood(Base):
    """How somebody felt at one moment: from 1, low, to 5, bright."""

    __tablename__ = "moods"
    __table_args__ = (
        CheckConstraint("score between 1 and 5", name="moods_score_range"),
        Index("moods_recorded_at", "recorded_at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    score: Mapped[int] = mapped_column(SmallInteger)
    note: Mapped[str | None] = mapped_column(String(NOTE_LENGTH_MAX))
    recorded_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
