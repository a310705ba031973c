"""Keep what a delivery waits for: an answer of its destination, or the destination's commitment."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.add_column(sa.Column("unreachable", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.drop_constraint(op.f("ck_deliveries_state_known"), type_="check")
        batch_op.create_check_constraint(
            op.f("ck_deliveries_state_known"),
            "state IN ('pending', 'stored', 'delivered', 'on_hold', 'failed', 'superseded')",
        )
    op.create_table(
        "commitments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitments")),
        sa.UniqueConstraint("transaction_uid", name=op.f("uq_commitments_transaction_uid")),
    )


def downgrade() -> None:
    op.drop_table("commitments")
    op.execute("UPDATE deliveries SET state = 'failed' WHERE state = 'on_hold'")
    op.execute("UPDATE deliveries SET state = 'pending' WHERE state = 'stored'")
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("ck_deliveries_state_known"), type_="check")
        batch_op.create_check_constraint(
            op.f("ck_deliveries_state_known"), "state IN ('pending', 'delivered', 'failed', 'superseded')"
        )
        batch_op.drop_column("unreachable")
