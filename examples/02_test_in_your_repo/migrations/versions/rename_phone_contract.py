"""rename-phone: contract

Leaves only the new shape. There is no way back.

Revision ID: a52bc1133cab
Revises: 0001_library
"""

import sqlalchemy as sa
from alembic import op

revision = "a52bc1133cab"
down_revision = "0001_library"
branch_labels = ("contract",)
depends_on = "150e3bff8b71"


def run(sql: str) -> None:
    """Run SQL as it is written: DDL() takes a percent sign for a format and nothing else for a parameter."""
    op.execute(sa.DDL(sql.replace("%", "%%")))


def upgrade() -> None:
    # waits behind nobody for longer
    run(r"""SET LOCAL lock_timeout = '500ms'""")
    # ACCESS EXCLUSIVE on public.members: the strongest lock first, so that none is raised later
    run(r"""LOCK TABLE public.members IN ACCESS EXCLUSIVE MODE""")
    # ACCESS EXCLUSIVE on public.members: the shapes part
    run(r"""DROP TRIGGER zz_parallelchange_rename_phone_update_743478 ON public.members""")
    # ACCESS EXCLUSIVE on public.members: the shapes part
    run(r"""DROP TRIGGER zz_parallelchange_rename_phone_insert_5140da ON public.members""")
    # nothing calls it any more
    run(r"""DROP FUNCTION public.parallelchange_rename_phone_members_45a444()""")
    # ACCESS EXCLUSIVE on public.members: the old shape goes
    run(r"""ALTER TABLE public.members DROP COLUMN phone""")


def downgrade() -> None:
    raise RuntimeError("contract is the point of no return: roll forward")
