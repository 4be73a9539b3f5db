"""MindWell's mood diary: a small service on FastAPI, SQLAlchemy with asyncpg, and Alembic."""

__version__ = "1.4.0"
