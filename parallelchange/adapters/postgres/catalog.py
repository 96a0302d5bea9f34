"""Reading the schema: the change's tables, and a fingerprint of everything."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.model import Catalog, Column, Table, TableName

__all__ = ["canonical_types", "fingerprint", "read_catalog", "schema_lines"]

# One line per object of the user's schemas. Left out: system schemas, our ledger, Alembic's bookkeeping, objects
# of extensions, the catalogued NOT NULL constraints that only PostgreSQL 18 has (attnotnull says the same), and
# the checks that migrate adds: they are the change's own, and the schema counts as expanded with and without them.
_OBJECTS = """
WITH spaces AS (
  SELECT oid, nspname FROM pg_namespace
  WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'parallelchange')
), rels AS (
  SELECT c.oid, c.relname, c.relkind, c.relrowsecurity, c.relforcerowsecurity, c.relpersistence, c.reloptions,
    n.nspname
  FROM pg_class c JOIN spaces n ON n.oid = c.relnamespace
  WHERE c.relname <> 'alembic_version'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                    AND d.deptype = 'e')
), lines AS (
  SELECT format('relation %s.%s %s %s %s %s %s', nspname, relname, relkind, relrowsecurity, relforcerowsecurity,
      relpersistence, reloptions) AS line
  FROM rels WHERE relkind IN ('r', 'p', 'v', 'm', 'f')
  UNION ALL
  SELECT format('column %s.%s %s %s %s null=%s %s %s %s', r.nspname, r.relname,
      row_number() OVER (PARTITION BY r.oid ORDER BY a.attnum),
      a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
      a.attidentity::text || a.attgenerated::text, pg_get_expr(d.adbin, d.adrelid),
      (SELECT collname FROM pg_collation l WHERE l.oid = a.attcollation))
  FROM rels r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
  UNION ALL
  SELECT format('constraint %s.%s %s %s %s', r.nspname, r.relname, c.conname, c.convalidated,
      pg_get_constraintdef(c.oid))
  FROM rels r JOIN pg_constraint c ON c.conrelid = r.oid WHERE c.contype NOT IN ('n', 't')
    AND c.conname !~ '^parallelchange_'
  UNION ALL
  SELECT format('index %s %s', pg_get_indexdef(i.indexrelid), i.indisvalid)
  FROM rels r JOIN pg_index i ON i.indrelid = r.oid
  UNION ALL
  SELECT format('trigger %s %s %s', pg_get_triggerdef(t.oid), t.tgenabled, md5(p.prosrc))
  FROM rels r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal JOIN pg_proc p ON p.oid = t.tgfoid
  UNION ALL
  SELECT format('view %s.%s %s', nspname, relname, pg_get_viewdef(oid)) FROM rels WHERE relkind IN ('v', 'm')
  UNION ALL
  SELECT format('rule %s', pg_get_ruledef(w.oid))
  FROM rels r JOIN pg_rewrite w ON w.ev_class = r.oid WHERE r.relkind IN ('r', 'p')
  UNION ALL
  SELECT format('policy %s.%s %s %s %s %s %s %s', r.nspname, r.relname, p.polname, p.polcmd, p.polpermissive,
      (SELECT string_agg(CASE o WHEN 0 THEN 'public' ELSE pg_get_userbyid(o) END, ',') FROM unnest(p.polroles) o),
      pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
  FROM rels r JOIN pg_policy p ON p.polrelid = r.oid
  UNION ALL
  SELECT format('function %s.%s(%s) %s', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid),
      CASE WHEN p.prokind IN ('f', 'p') THEN md5(pg_get_functiondef(p.oid)) ELSE p.prosrc END)
  FROM pg_proc p JOIN spaces n ON n.oid = p.pronamespace
  WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                    AND d.deptype = 'e')
  UNION ALL
  SELECT format('enum %s.%s %s', n.nspname, t.typname, string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder))
  FROM pg_type t JOIN spaces n ON n.oid = t.typnamespace JOIN pg_enum e ON e.enumtypid = t.oid
  GROUP BY n.nspname, t.typname
  UNION ALL
  SELECT format('domain %s.%s %s %s %s', n.nspname, t.typname, format_type(t.typbasetype, t.typtypmod), t.typnotnull,
      (SELECT string_agg(pg_get_constraintdef(c.oid), ';' ORDER BY c.conname) FROM pg_constraint c
       WHERE c.contypid = t.oid AND c.contype = 'c'))
  FROM pg_type t JOIN spaces n ON n.oid = t.typnamespace WHERE t.typtype = 'd'
)
"""
_FINGERPRINT = f"""{_OBJECTS}
SELECT encode(sha256(convert_to(coalesce(string_agg(line, E'\\n' ORDER BY line COLLATE "C"), ''), 'UTF8')), 'hex')
FROM lines
"""
_LINES = f'{_OBJECTS} SELECT line FROM lines ORDER BY line COLLATE "C"'

_TABLE = """
SELECT c.oid, c.relkind, nullif(c.reltuples, -1)::bigint,
  (SELECT array_agg(a.attname::text ORDER BY k.place) FROM pg_index i,
     unnest(i.indkey) WITH ORDINALITY k(num, place) JOIN pg_attribute a ON a.attnum = k.num
   WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid AND k.place <= i.indnkeyatts)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
"""

_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
  a.attgenerated <> '', a.attidentity <> '',
  (SELECT coalesce(array_agg(DISTINCT pg_describe_object(p.classid, p.objid, p.objsubid)), '{}')
   FROM pg_depend p
   LEFT JOIN pg_constraint k ON p.classid = 'pg_constraint'::regclass AND k.oid = p.objid
   WHERE p.refclassid = 'pg_class'::regclass AND p.refobjid = a.attrelid AND p.refobjsubid = a.attnum
     AND p.deptype IN ('n', 'a') AND NOT EXISTS (
       SELECT FROM pg_attrdef own WHERE p.classid = 'pg_attrdef'::regclass AND own.oid = p.objid
         AND own.adrelid = a.attrelid AND own.adnum = a.attnum)
     AND coalesce(k.contype <> 'n', true))
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""

_TRIGGERS = """
SELECT t.tgname, t.tgenabled IN ('O', 'A'), md5(p.prosrc), t.oid
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
WHERE t.tgrelid = %s AND NOT t.tgisinternal AND t.tgname LIKE 'zz\\_parallelchange\\_%%'
ORDER BY t.oid
"""

# Type bits: 1 row, 2 before (PostgreSQL's pg_trigger.h).
_LATER = """
SELECT tgname FROM pg_trigger
WHERE tgrelid = %s AND NOT tgisinternal AND tgtype & 3 = 3 AND tgname >= 'zz_parallelchange_'
  AND tgname NOT LIKE 'zz\\_parallelchange\\_%%' ORDER BY tgname
"""

_CHILDREN = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s ORDER BY 1"


def fingerprint(connection: Connection) -> str:
    """sha256 over the user's schema."""
    with connection.transaction(force_rollback=True):
        # Definitions are printed relative to the search path; empty, they are the same for every session.
        connection.execute("SET LOCAL search_path = ''")
        connection.execute("SET LOCAL quote_all_identifiers = off")
        row = connection.execute(_FINGERPRINT).fetchone()
    assert row is not None
    return str(row[0])


def schema_lines(connection: Connection) -> list[str]:
    """What the fingerprint is taken of: one text for each object; joined by line feeds, their sha256 is it."""
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL search_path = ''")
        connection.execute("SET LOCAL quote_all_identifiers = off")
        return [str(row[0]) for row in connection.execute(_LINES)]


def read_catalog(connection: Connection, tables: Iterable[TableName], types: Iterable[str] = ()) -> Catalog:
    """Read the tables of a change.

    Args:
        connection: A session.
        tables: Those asked for; a missing one is left out.
        types: Types the change names, to be told by their canonical names.
    """
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL search_path = pg_catalog, public")
        found = {name: table for name in tables if (table := _table(connection, name)) is not None}
    return Catalog(found, fingerprint(connection), connection.info.server_version, canonical_types(connection, types))


def _table(connection: Connection, name: TableName) -> Table | None:
    row = connection.execute(_TABLE, (name.schema, name.name)).fetchone()
    if row is None:
        return None
    oid, kind, rows, key = row
    columns, dependents = [], {}
    for column, type_, nullable, default, generated, identity, lost in connection.execute(_COLUMNS, (oid,)):
        columns.append(Column(column, type_, nullable, default, generated, identity))
        if lost:
            dependents[column] = tuple(lost)
    ours = connection.execute(_TRIGGERS, (oid,)).fetchall()
    return Table(
        name,
        tuple(columns),
        tuple(key or ()),
        dependents,
        {trigger: (enabled, body) for trigger, enabled, body, _ in ours},
        tuple(row[0] for row in connection.execute(_LATER, (oid,))),
        tuple(row[0] for row in connection.execute(_CHILDREN, (oid,))),
        ",".join(str(oid) for *_, oid in ours),
        rows,
        kind,
    )


def canonical_types(connection: Connection, types: Iterable[str]) -> dict[str, str]:
    """How the server writes each type; one it does not know is left out."""
    known = {}
    for type_ in set(types):
        try:
            with connection.transaction(force_rollback=True):
                connection.execute("SET LOCAL search_path = pg_catalog, public")
                # The type is the change file's own SQL and cannot be an identifier: numeric(10, 2).
                result = connection.pgconn.exec_params(f"SELECT NULL::{type_}".encode(), [])
                if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
                    continue
                row = connection.execute("SELECT format_type(%s, %s)", (result.ftype(0), result.fmod(0))).fetchone()
        except psycopg.Error:
            continue
        if row:
            known[type_] = str(row[0])
    return known
