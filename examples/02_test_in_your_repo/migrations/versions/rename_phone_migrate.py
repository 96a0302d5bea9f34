"""rename-phone: migrate

Refuses unless every row has both shapes. Run it when nothing of the old version writes any more.

Revision ID: 150e3bff8b71
Revises: 0001_library
"""

import sqlalchemy as sa
from alembic import op

revision = "150e3bff8b71"
down_revision = "0001_library"
branch_labels = ("migrate",)
depends_on = "fb285f3b05aa"


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
    # ACCESS SHARE on public.members: refuses unless phone can be had back from mobile
    run(r"""DO $parallelchange$
DECLARE path text := current_setting('search_path');
BEGIN
PERFORM set_config('search_path', 'pg_catalog, public', true);
IF EXISTS (SELECT FROM public.members WHERE (phone COLLATE "C" IS NOT DISTINCT FROM (mobile) COLLATE "C") IS NOT TRUE) THEN
  RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE = 'parallel change rename-phone: rows of public.members break the law that phone can be had back from mobile', HINT = 'run: parallelchange backfill rename-phone';
END IF;
PERFORM set_config('search_path', path, true);
END
$parallelchange$""")


def downgrade() -> None:
    pass
