"""Keep what the pixels of an image told."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("instances", sa.Column("correction", sa.String(length=32), server_default="", nullable=False))


def downgrade() -> None:
    op.drop_column("instances", "correction")
