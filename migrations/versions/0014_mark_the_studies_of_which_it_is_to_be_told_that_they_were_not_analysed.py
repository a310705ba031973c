"""Mark the studies of which it is still to be told that they were not analysed."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("studies", sa.Column("untold", sa.Boolean(), server_default=sa.false(), nullable=False))
    studies = sa.table("studies", sa.column("state"), sa.column("untold", sa.Boolean()))
    op.execute(studies.update().where(studies.c.state == "not_analysed").values(untold=True))  # who was told is found out
    op.create_index(
        op.f("ix_studies_untold"),
        "studies",
        ["state", "untold"],
        sqlite_where=sa.text("untold = 1"),
        postgresql_where=sa.text("untold"),
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_studies_untold"), table_name="studies")
    op.drop_column("studies", "untold")
