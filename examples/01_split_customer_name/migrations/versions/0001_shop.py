"""The shop as version 1 knows it: a customer has one name."""

import sqlalchemy as sa
from alembic import op

revision = "0001_shop"
down_revision = None
branch_labels = None
depends_on = None


def created_at() -> sa.Column:
    return sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now())


def upgrade() -> None:
    op.create_table(
        "customers",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        created_at(),
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("customer_id", sa.BigInteger, sa.ForeignKey("customers.id"), nullable=False),
        sa.Column("item", sa.Text, nullable=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        created_at(),
    )
    op.create_index("orders_customer_id_idx", "orders", ["customer_id"])
    # Filled by `INSERT ... SELECT *`, so it breaks when a column is added to customers.
    op.create_table(
        "customers_export",
        sa.Column("id", sa.BigInteger),
        sa.Column("name", sa.Text),
        sa.Column("email", sa.Text),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True)),
    )


def downgrade() -> None:
    op.drop_table("customers_export")
    op.drop_table("orders")
    op.drop_table("customers")
