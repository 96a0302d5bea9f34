"""The library's tables, as version 1 knows them."""

from alembic import op

revision = "0001_library"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE TABLE members (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, phone text, joined date)")
    op.execute("CREATE TABLE loans (member_id bigint NOT NULL REFERENCES members, book text NOT NULL)")


def downgrade() -> None:
    op.execute("DROP TABLE loans, members")
