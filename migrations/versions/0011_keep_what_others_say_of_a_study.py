"""Keep what others say of the images that a study has."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "evidence",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("growing", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("instances", sa.JSON(), server_default="[]", nullable=False),
        sa.Column("count", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evidence")),
        sa.UniqueConstraint("kind", "source", "study_uid", name=op.f("uq_evidence_kind_source_study_uid")),
    )
    op.create_index(op.f("ix_evidence_study_uid"), "evidence", ["study_uid"])


def downgrade() -> None:
    op.drop_table("evidence")
