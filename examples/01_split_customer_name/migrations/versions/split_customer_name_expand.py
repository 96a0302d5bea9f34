"""split-customer-name: expand

Adds the new shape beside the old one; both versions work on it.

Revision ID: 8190e58e1bd7
Revises: 0001_shop
"""

import sqlalchemy as sa
from alembic import op

revision = "8190e58e1bd7"
down_revision = "0001_shop"
branch_labels = ("expand",)
depends_on = None


def run(sql: str) -> None:
    """Run SQL as it is written: DDL() takes a percent sign for a format and nothing else for a parameter."""
    op.execute(sa.DDL(sql.replace("%", "%%")))


def upgrade() -> None:
    # waits behind nobody for longer
    run(r"""SET LOCAL lock_timeout = '500ms'""")
    # ACCESS EXCLUSIVE on public.customers: the strongest lock first, so that none is raised later
    run(r"""LOCK TABLE public.customers IN ACCESS EXCLUSIVE MODE""")
    # ACCESS EXCLUSIVE on public.customers: the new shape, empty and without default: no rewrite
    run(r"""ALTER TABLE public.customers ADD COLUMN first_name text, ADD COLUMN last_name text""")
    # computes one shape from the other
    run(r"""CREATE FUNCTION public.parallelchange_split_customer_name_customers_60643f() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public SET timezone = 'UTC' SET datestyle = 'ISO' SET intervalstyle = 'postgres' SET extra_float_digits = '1' AS $parallelchange$
#variable_conflict use_column
BEGIN
IF TG_OP = 'INSERT' THEN
  IF current_setting('application_name') = 'shop-v2' OR (NOT (current_setting('application_name') = 'shop-v1') AND (NEW.first_name IS NOT NULL OR NEW.last_name IS NOT NULL)) THEN
    IF (NEW.name IS NOT NULL) AND true AND NOT (SELECT name COLLATE "C" IS NOT DISTINCT FROM (first_name || coalesce(' ' || last_name, '')) COLLATE "C" FROM (SELECT NEW.*) AS customers) THEN RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation', MESSAGE = 'parallel change split-customer-name: public.customers: one statement wrote both shapes and they disagree', HINT = 'write either the old or the new columns, or values that agree'; END IF;
    SELECT (first_name || coalesce(' ' || last_name, '')) INTO NEW.name FROM (SELECT NEW.*) AS customers;
  ELSE
    IF (NEW.first_name IS NOT NULL OR NEW.last_name IS NOT NULL) AND NOT (SELECT name COLLATE "C" IS NOT DISTINCT FROM (first_name || coalesce(' ' || last_name, '')) COLLATE "C" FROM (SELECT NEW.*) AS customers) THEN RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation', MESSAGE = 'parallel change split-customer-name: public.customers: one statement wrote both shapes and they disagree', HINT = 'write either the old or the new columns, or values that agree'; END IF;
    SELECT (split_part(name, ' ', 1)), (CASE WHEN strpos(name, ' ') > 0 THEN substr(name, strpos(name, ' ') + 1) END) INTO NEW.first_name, NEW.last_name FROM (SELECT NEW.*) AS customers;
  END IF;
ELSE
  IF OLD.first_name COLLATE "C" IS DISTINCT FROM NEW.first_name COLLATE "C" OR OLD.last_name COLLATE "C" IS DISTINCT FROM NEW.last_name COLLATE "C" THEN
    IF (OLD.name COLLATE "C" IS DISTINCT FROM NEW.name COLLATE "C") THEN
      IF NOT (SELECT name COLLATE "C" IS NOT DISTINCT FROM (first_name || coalesce(' ' || last_name, '')) COLLATE "C" FROM (SELECT NEW.*) AS customers) THEN RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation', MESSAGE = 'parallel change split-customer-name: public.customers: one statement wrote both shapes and they disagree', HINT = 'write either the old or the new columns, or values that agree'; END IF;
    ELSE
      SELECT (first_name || coalesce(' ' || last_name, '')) INTO NEW.name FROM (SELECT NEW.*) AS customers;
    END IF;
  ELSIF OLD.name COLLATE "C" IS DISTINCT FROM NEW.name COLLATE "C" THEN
    SELECT (split_part(name, ' ', 1)), (CASE WHEN strpos(name, ' ') > 0 THEN substr(name, strpos(name, ' ') + 1) END) INTO NEW.first_name, NEW.last_name FROM (SELECT NEW.*) AS customers;
  END IF;
END IF;
RETURN NEW;
END
$parallelchange$""")
    # SHARE ROW EXCLUSIVE on public.customers: new rows have both shapes
    run(r"""CREATE TRIGGER zz_parallelchange_split_customer_name_insert_5067bc BEFORE INSERT ON public.customers FOR EACH ROW EXECUTE FUNCTION public.parallelchange_split_customer_name_customers_60643f()""")
    # SHARE ROW EXCLUSIVE on public.customers: a write to one shape moves the other; other writes pass by
    run(r"""CREATE TRIGGER zz_parallelchange_split_customer_name_update_589576 BEFORE UPDATE ON public.customers FOR EACH ROW WHEN ((OLD.name COLLATE "C" IS DISTINCT FROM NEW.name COLLATE "C" OR OLD.first_name COLLATE "C" IS DISTINCT FROM NEW.first_name COLLATE "C" OR OLD.last_name COLLATE "C" IS DISTINCT FROM NEW.last_name COLLATE "C") AND current_setting('parallelchange.backfill', true) IS DISTINCT FROM 'split-customer-name') EXECUTE FUNCTION public.parallelchange_split_customer_name_customers_60643f()""")


def downgrade() -> None:
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
    # ACCESS EXCLUSIVE on public.customers: the new shape goes
    run(r"""ALTER TABLE public.customers DROP COLUMN first_name, DROP COLUMN last_name""")
