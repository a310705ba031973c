"""Keep whose study an event was about when it happened."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

COLUMNS = ("patient_id", "issuer_of_patient_id", "accession_number")


def upgrade() -> None:
    for column in COLUMNS:  # null in what was noted before, which nobody may change
        op.add_column("events", sa.Column(column, sa.String(length=64), nullable=True))


def downgrade() -> None:
    for column in reversed(COLUMNS):
        op.drop_column("events", column)
