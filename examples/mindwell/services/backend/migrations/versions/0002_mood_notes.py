"""A note to a mood, and an index for the list of the latest.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("moods", sa.Column("note", sa.String(length=500), nullable=True))
    op.create_index("moods_recorded_at", "moods", ["recorded_at"])


def downgrade() -> None:
    op.drop_index("moods_recorded_at", table_name="moods")
    op.drop_column("moods", "note")
