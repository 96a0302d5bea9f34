"""Evidence tells whether it was measured on the live database or on a copy; what does not tell counts for nothing."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DELETE FROM parallelchange.evidence")
    op.execute("ALTER TABLE parallelchange.evidence ADD COLUMN place text NOT NULL CHECK (place IN ('live', 'copy'))")


def downgrade() -> None:
    op.execute("DELETE FROM parallelchange.evidence WHERE place = 'copy'")
    op.execute("ALTER TABLE parallelchange.evidence DROP COLUMN place")
