"""Let a shadow model answer beside the active one."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "shadows",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shadows")),
    )
    with op.batch_alter_table("predictions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("role", sa.String(length=8), server_default="active", nullable=False))
        batch_op.create_check_constraint(op.f("ck_predictions_role_known"), "role IN ('active', 'shadow')")
        batch_op.drop_constraint(op.f("uq_predictions_instance_id_generation"), type_="unique")
        batch_op.create_unique_constraint(
            op.f("uq_predictions_instance_id_generation_role"), ["instance_id", "generation", "role"]
        )


def downgrade() -> None:
    op.execute("DELETE FROM predictions WHERE role = 'shadow'")
    with op.batch_alter_table("predictions", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("uq_predictions_instance_id_generation_role"), type_="unique")
        batch_op.create_unique_constraint(op.f("uq_predictions_instance_id_generation"), ["instance_id", "generation"])
        batch_op.drop_constraint(op.f("ck_predictions_role_known"), type_="check")
        batch_op.drop_column("role")
    op.drop_table("shadows")
