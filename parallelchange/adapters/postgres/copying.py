"""The data for a recorded COPY … FROM STDIN, which no log has: one row that fits, and what makes a row fit."""

from __future__ import annotations

import psycopg
from psycopg import sql
from psycopg.pq import ExecStatus

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.adapters.postgres.rows import one_row, read_row_facts
from parallelchange.model import TableName
from parallelchange.sqltext import tokens

__all__ = ["copy_data", "copy_target"]

# All that can refuse one row and take another. What its functions look at nobody can tell, and what its triggers write
# to may refuse a row as well: then all that there is counts.
_TARGET = """
WITH RECURSIVE tree AS (
  SELECT to_regclass(%s)::oid AS id UNION SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.id
), spaces AS (
  SELECT oid FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'parallelchange')
), rels AS (
  SELECT c.* FROM pg_class c WHERE c.oid IN (SELECT id FROM tree) OR (c.relnamespace IN (SELECT oid FROM spaces)
    AND c.relkind IN ('r', 'p', 'v')
    AND EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid IN (SELECT id FROM tree) AND NOT g.tgisinternal))
), calls AS (
  SELECT EXISTS (
    SELECT FROM pg_depend d JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
    LEFT JOIN pg_constraint c ON d.classid = 'pg_constraint'::regclass AND c.oid = d.objid
    LEFT JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
    LEFT JOIN pg_index x ON d.classid = 'pg_class'::regclass AND x.indexrelid = d.objid
    LEFT JOIN pg_trigger g ON d.classid = 'pg_trigger'::regclass AND g.oid = d.objid
    LEFT JOIN pg_policy y ON d.classid = 'pg_policy'::regclass AND y.oid = d.objid
    WHERE p.pronamespace IN (SELECT oid FROM spaces)
      AND (c.contypid <> 0 OR EXISTS (SELECT FROM tree
           WHERE id IN (c.conrelid, f.adrelid, x.indrelid, g.tgrelid, y.polrelid)))) AS "any"
), types AS (
  SELECT a.atttypid AS id FROM pg_attribute a WHERE a.attrelid IN (SELECT id FROM tree)
), lines AS (
  SELECT format('%%s %%s %%s %%s', oid::regclass, relkind, relrowsecurity, pg_get_expr(relpartbound, oid)) AS line
  FROM rels
  UNION ALL
  SELECT format('%%s %%s %%s %%s %%s %%s', r.oid::regclass, a.attname, format_type(a.atttypid, a.atttypmod),
    a.attnotnull, a.attidentity::text || a.attgenerated::text, pg_get_expr(d.adbin, d.adrelid))
  FROM rels r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  UNION ALL
  SELECT format('%%s %%s', conrelid, pg_get_constraintdef(oid)) FROM pg_constraint
  WHERE (conrelid IN (SELECT oid FROM rels) AND contype NOT IN ('n', 't')) OR contypid IN (SELECT id FROM types)
  UNION ALL
  SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid IN (SELECT oid FROM rels)
  UNION ALL
  SELECT pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger
  WHERE tgrelid IN (SELECT oid FROM rels) AND NOT tgisinternal
  UNION ALL
  SELECT format('%%s %%s %%s %%s', polrelid, polname, pg_get_expr(polqual, polrelid),
    pg_get_expr(polwithcheck, polrelid))
  FROM pg_policy WHERE polrelid IN (SELECT oid FROM rels)
  UNION ALL
  SELECT format('%%s %%s', oid::regprocedure, md5(concat(prosrc, pg_get_function_sqlbody(oid)))) FROM pg_proc
  WHERE pronamespace IN (SELECT oid FROM spaces) AND (SELECT "any" FROM calls)
  UNION ALL
  SELECT format('%%s %%s', enumtypid::regtype, enumlabel) FROM pg_enum WHERE enumtypid IN (SELECT id FROM types)
)
SELECT md5(string_agg(line, chr(10) ORDER BY line COLLATE "C")) FROM lines
"""


def copy_data(connection: Connection, statement: str) -> bytes | None:
    """One row, in the very format the COPY asks for.

    Args:
        connection: The session it will run in, inside a transaction; where its table is looked up.
        statement: The COPY.

    Returns:
        The data; None where no row can be made.
    """
    target, names, options = _parts(statement)
    connection.execute("SAVEPOINT parallelchange_copy")
    try:
        found = connection.execute(
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.oid = to_regclass(%s)",
            (target,),
        ).fetchone()
        if found is None:
            return b""  # there is no such table: the COPY itself says so
        facts = read_row_facts(connection, TableName(*found))
        columns = names or [field.name for field in facts.fields if not field.given or field.defaulted]
        fields = [field for field in map(facts.field, columns) if field]
        row = one_row(connection, facts, [field.name for field in fields])
        if row is None or not fields:
            return None
        values = [
            sql.SQL("{}::{} AS {}").format(
                sql.Literal(row[field.name]), sql.SQL(field.type), sql.Identifier(field.name)
            )
            for field in fields
        ]
        query = sql.SQL("COPY (SELECT {}) TO STDOUT {}").format(sql.SQL(", ").join(values), sql.SQL(options))
        return _read(connection, query.as_string(connection))
    except psycopg.Error:
        if connection.closed:
            raise
        return None
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK TO SAVEPOINT parallelchange_copy")
            connection.execute("RELEASE SAVEPOINT parallelchange_copy")


def copy_target(connection: Connection, statement: str) -> str:
    """A digest of all that decides which rows a COPY … FROM STDIN may bring; empty where it cannot be told.

    Args:
        connection: The session it will run in, inside a transaction; where its table is looked up.
        statement: The COPY.
    """
    connection.execute("SAVEPOINT parallelchange_copy")
    try:
        row = connection.execute(_TARGET, (_parts(statement)[0],)).fetchone()
    except psycopg.Error:
        if connection.closed:
            raise
        row = None
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK TO SAVEPOINT parallelchange_copy")
            connection.execute("RELEASE SAVEPOINT parallelchange_copy")
    return str(row[0]) if row else ""


def _parts(statement: str) -> tuple[str, list[str], str]:
    """Table, columns and options of a COPY … FROM STDIN."""
    target, names, options = "", [], ""
    part = "target"
    for token in list(tokens(statement))[1:]:
        word = token.text.lower()
        if part == "target" and word == "(":
            part = "names"
        elif part in ("target", "names") and word == "from":
            part = "stdin"
        elif part == "stdin":
            part = "options"
        elif part == "target":
            target += token.text
        elif part == "names" and token.kind in ("word", "quoted"):
            names.append(token.text[1:-1].replace('""', '"') if token.kind == "quoted" else word)
        elif part == "options":
            options += f" {token.text}"
    return target, names, options.split(" where ")[0]


def _read(connection: Connection, query: str) -> bytes | None:
    pg = connection.pgconn
    if pg.exec_(query.encode()).status != ExecStatus.COPY_OUT:
        return None
    data = b""
    while True:
        size, block = pg.get_copy_data(0)
        if size <= 0:
            break
        data += bytes(block)
    while pg.get_result() is not None:
        pass
    return data
