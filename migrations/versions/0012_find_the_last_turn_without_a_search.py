"""Find the last turn, which every arrival asks for, without a search through all instances."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_instances_turn"), "instances", ["turn"])


def downgrade() -> None:
    op.drop_index(op.f("ix_instances_turn"), table_name="instances")
