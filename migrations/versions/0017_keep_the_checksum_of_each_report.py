"""Keep the checksum of each report."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("reports", sa.Column("sha256", sa.String(length=64), nullable=True))  # null: made before it was kept


def downgrade() -> None:
    op.drop_column("reports", "sha256")
