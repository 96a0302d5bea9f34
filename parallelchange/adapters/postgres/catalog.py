"""Reading the schema: the change's tables, and a fingerprint of everything."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.adapters.postgres.fingerprint import fingerprint
from parallelchange.model import Catalog, Column, Table, TableName

__all__ = ["canonical_types", "read_catalog"]

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
