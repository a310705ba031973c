"""Keep the kind and language of each output."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

KINDS = "'sr', 'text_sr', 'capture', 'heatmap', 'segmentation', 'presentation_state', 'key_object', 'pdf', 'not_analysed'"


def upgrade() -> None:
    with op.batch_alter_table("reports", schema=None) as batch_op:
        batch_op.add_column(sa.Column("language", sa.String(length=8), server_default="en", nullable=False))
        batch_op.alter_column("kind", existing_type=sa.String(length=16), type_=sa.String(length=32), existing_nullable=False)
        batch_op.drop_constraint(op.f("ck_reports_kind_known"), type_="check")
        batch_op.create_check_constraint(op.f("ck_reports_kind_known"), f"kind IN ({KINDS})")


def downgrade() -> None:
    # Objects of the newer kinds stay on disk and in the PACS; their rows and deliveries go.
    op.execute(
        "DELETE FROM deliveries WHERE report_id IN"
        " (SELECT id FROM reports WHERE kind NOT IN ('sr', 'capture') OR language <> 'en')"
    )
    op.execute("DELETE FROM reports WHERE kind NOT IN ('sr', 'capture') OR language <> 'en'")
    with op.batch_alter_table("reports", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("ck_reports_kind_known"), type_="check")
        batch_op.create_check_constraint(op.f("ck_reports_kind_known"), "kind IN ('sr', 'capture')")
        batch_op.alter_column("kind", existing_type=sa.String(length=32), type_=sa.String(length=16), existing_nullable=False)
        batch_op.drop_column("language")
