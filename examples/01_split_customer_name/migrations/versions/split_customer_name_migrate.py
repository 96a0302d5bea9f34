"""split-customer-name: migrate

Refuses unless every row has both shapes. Run it when nothing of the old version writes any more.

Revision ID: d909ef52322a
Revises: 0001_shop
"""

import sqlalchemy as sa
from alembic import op

revision = "d909ef52322a"
down_revision = "0001_shop"
branch_labels = ("migrate",)
depends_on = "8190e58e1bd7"


def run(sql: str) -> None:
    """Run SQL as it is written: DDL() takes a percent sign for a format and nothing else for a parameter."""
    op.execute(sa.DDL(sql.replace("%", "%%")))


def upgrade() -> None:
    # waits behind nobody for longer
    run(r"""SET LOCAL lock_timeout = '500ms'""")
    # a hidden row is an error, not a row less
    run(r"""SET LOCAL row_security = off""")
    # values are written as the trigger writes them
    run(r"""SET LOCAL timezone = 'UTC'""")
    # values are written as the trigger writes them
    run(r"""SET LOCAL datestyle = 'ISO'""")
    # values are written as the trigger writes them
    run(r"""SET LOCAL intervalstyle = 'postgres'""")
    # values are written as the trigger writes them
    run(r"""SET LOCAL extra_float_digits = '1'""")
    # ACCESS SHARE on public.customers: refuses unless name can be had back from first_name, last_name
    run(r"""DO $parallelchange$
DECLARE path text := current_setting('search_path');
BEGIN
PERFORM set_config('search_path', 'pg_catalog, public', true);
IF EXISTS (SELECT FROM public.customers WHERE (name COLLATE "C" IS NOT DISTINCT FROM (first_name || coalesce(' ' || last_name, '')) COLLATE "C") IS NOT TRUE) THEN
  RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE = 'parallel change split-customer-name: rows of public.customers break the law that name can be had back from first_name, last_name', HINT = 'run: parallelchange backfill split-customer-name';
END IF;
PERFORM set_config('search_path', path, true);
END
$parallelchange$""")


def downgrade() -> None:
    pass
