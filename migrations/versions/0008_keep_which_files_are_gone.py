"""Keep which files are gone."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("instances", sa.Column("gone_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("reports", sa.Column("gone_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("reports", "gone_at")
    op.drop_column("instances", "gone_at")
