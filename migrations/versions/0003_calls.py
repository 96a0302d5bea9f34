"""What the server had counted of the old version's statements when it was last seen to call one."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE parallelchange.change ADD COLUMN calls jsonb")


def downgrade() -> None:
    op.execute("ALTER TABLE parallelchange.change DROP COLUMN calls")
