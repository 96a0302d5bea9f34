"""split-customer-name: contract

Leaves only the new shape. There is no way back.

Revision ID: 3a5e4378aafd
Revises: 0001_shop
"""

import sqlalchemy as sa
from alembic import op

revision = "3a5e4378aafd"
down_revision = "0001_shop"
branch_labels = ("contract",)
depends_on = "d909ef52322a"


def run(sql: str) -> None:
    """Run SQL as it is written: DDL() takes a percent sign for a format and nothing else for a parameter."""
    op.execute(sa.DDL(sql.replace("%", "%%")))


def upgrade() -> None:
    # waits behind nobody for longer
    run(r"""SET LOCAL lock_timeout = '500ms'""")
    # ACCESS EXCLUSIVE on public.customers: the strongest lock first, so that none is raised later
    run(r"""LOCK TABLE public.customers IN ACCESS EXCLUSIVE MODE""")
    # ACCESS EXCLUSIVE on public.customers: the shapes part
    run(r"""DROP TRIGGER zz_parallelchange_split_customer_name_update_589576 ON public.customers""")
    # ACCESS EXCLUSIVE on public.customers: the shapes part
    run(r"""DROP TRIGGER zz_parallelchange_split_customer_name_insert_5067bc ON public.customers""")
    # nothing calls it any more
    run(r"""DROP FUNCTION public.parallelchange_split_customer_name_customers_60643f()""")
    # ACCESS EXCLUSIVE on public.customers: the old shape goes
    run(r"""ALTER TABLE public.customers DROP COLUMN name""")


def downgrade() -> None:
    raise RuntimeError("contract is the point of no return: roll forward")
