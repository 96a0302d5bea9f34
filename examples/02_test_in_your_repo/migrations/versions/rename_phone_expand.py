"""rename-phone: expand

Adds the new shape beside the old one; both versions work on it.

Revision ID: fb285f3b05aa
Revises: 0001_library
"""

import sqlalchemy as sa
from alembic import op

revision = "fb285f3b05aa"
down_revision = "0001_library"
branch_labels = ("expand",)
depends_on = None


def run(sql: str) -> None:
    """Run SQL as it is written: DDL() takes a percent sign for a format and nothing else for a parameter."""
    op.execute(sa.DDL(sql.replace("%", "%%")))


def upgrade() -> None:
    # waits behind nobody for longer
    run(r"""SET LOCAL lock_timeout = '500ms'""")
    # ACCESS EXCLUSIVE on public.members: the strongest lock first, so that none is raised later
    run(r"""LOCK TABLE public.members IN ACCESS EXCLUSIVE MODE""")
    # ACCESS EXCLUSIVE on public.members: the new shape, empty and without default: no rewrite
    run(r"""ALTER TABLE public.members ADD COLUMN mobile text""")
    # computes one shape from the other
    run(r"""CREATE FUNCTION public.parallelchange_rename_phone_members_45a444() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public SET timezone = 'UTC' SET datestyle = 'ISO' SET intervalstyle = 'postgres' SET extra_float_digits = '1' AS $parallelchange$
#variable_conflict use_column
BEGIN
IF TG_OP = 'INSERT' THEN
  IF current_setting('application_name') = 'library-v2' OR (NOT (current_setting('application_name') = 'library-v1') AND (NEW.mobile IS NOT NULL)) THEN
    IF (NEW.phone IS NOT NULL) AND true AND NOT (SELECT phone COLLATE "C" IS NOT DISTINCT FROM (mobile) COLLATE "C" FROM (SELECT NEW.*) AS members) THEN RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation', MESSAGE = 'parallel change rename-phone: public.members: one statement wrote both shapes and they disagree', HINT = 'write either the old or the new columns, or values that agree'; END IF;
    SELECT (mobile) INTO NEW.phone FROM (SELECT NEW.*) AS members;
  ELSE
    IF (NEW.mobile IS NOT NULL) AND NOT (SELECT phone COLLATE "C" IS NOT DISTINCT FROM (mobile) COLLATE "C" FROM (SELECT NEW.*) AS members) THEN RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation', MESSAGE = 'parallel change rename-phone: public.members: one statement wrote both shapes and they disagree', HINT = 'write either the old or the new columns, or values that agree'; END IF;
    SELECT (phone) INTO NEW.mobile FROM (SELECT NEW.*) AS members;
  END IF;
ELSE
  IF OLD.mobile COLLATE "C" IS DISTINCT FROM NEW.mobile COLLATE "C" THEN
    IF (OLD.phone COLLATE "C" IS DISTINCT FROM NEW.phone COLLATE "C") THEN
      IF NOT (SELECT phone COLLATE "C" IS NOT DISTINCT FROM (mobile) COLLATE "C" FROM (SELECT NEW.*) AS members) THEN RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation', MESSAGE = 'parallel change rename-phone: public.members: one statement wrote both shapes and they disagree', HINT = 'write either the old or the new columns, or values that agree'; END IF;
    ELSE
      SELECT (mobile) INTO NEW.phone FROM (SELECT NEW.*) AS members;
    END IF;
  ELSIF OLD.phone COLLATE "C" IS DISTINCT FROM NEW.phone COLLATE "C" THEN
    SELECT (phone) INTO NEW.mobile FROM (SELECT NEW.*) AS members;
  END IF;
END IF;
RETURN NEW;
END
$parallelchange$""")
    # SHARE ROW EXCLUSIVE on public.members: new rows have both shapes
    run(r"""CREATE TRIGGER zz_parallelchange_rename_phone_insert_5140da BEFORE INSERT ON public.members FOR EACH ROW EXECUTE FUNCTION public.parallelchange_rename_phone_members_45a444()""")
    # SHARE ROW EXCLUSIVE on public.members: a write to one shape moves the other; other writes pass by
    run(r"""CREATE TRIGGER zz_parallelchange_rename_phone_update_743478 BEFORE UPDATE ON public.members FOR EACH ROW WHEN ((OLD.phone COLLATE "C" IS DISTINCT FROM NEW.phone COLLATE "C" OR OLD.mobile COLLATE "C" IS DISTINCT FROM NEW.mobile COLLATE "C") AND current_setting('parallelchange.backfill', true) IS DISTINCT FROM 'rename-phone') EXECUTE FUNCTION public.parallelchange_rename_phone_members_45a444()""")


def downgrade() -> None:
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
    # ACCESS EXCLUSIVE on public.members: the new shape goes
    run(r"""ALTER TABLE public.members DROP COLUMN mobile""")
