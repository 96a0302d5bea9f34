"""A scratch copy of a database: its whole schema and some of its rows, with foreign keys intact."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from parallelchange.adapters.postgres.connection import Connection, connect, describe_url
from parallelchange.errors import Unavailable

__all__ = ["copy_database"]

ROWS = 20_000
"""Rows taken of each table."""

_TABLES = """
SELECT n.nspname, c.relname,
  (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
   WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
  (SELECT array_agg(a.attname::text ORDER BY k.place) FROM pg_index i,
     unnest(i.indkey) WITH ORDINALITY k(num, place) JOIN pg_attribute a ON a.attnum = k.num
   WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'parallelchange')
ORDER BY 1, 2
"""

_FOREIGN_KEYS = """
SELECT cn.nspname, cc.relname, pn.nspname, pc.relname,
  (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(f.conkey) WITH ORDINALITY k(num, place)
   JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.num),
  (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(f.confkey) WITH ORDINALITY k(num, place)
   JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.num)
FROM pg_constraint f
JOIN pg_class cc ON cc.oid = f.conrelid JOIN pg_namespace cn ON cn.oid = cc.relnamespace
JOIN pg_class pc ON pc.oid = f.confrelid JOIN pg_namespace pn ON pn.oid = pc.relnamespace
WHERE f.contype = 'f' AND f.conparentid = 0
"""


def copy_database(source: str, target: str, tools: Path, *, rows: int = ROWS) -> None:
    """Copy a database.

    Args:
        source: URL of the shared database; it is only read.
        target: URL of an empty scratch database, as superuser.
        tools: Folder of pg_dump and psql.
        rows: Rows taken of each table.

    Raises:
        Unavailable: The source cannot be read, or the copy cannot be made.
    """
    _copy_roles(source, target)
    options = ("--schema-only", "--no-owner", "--no-privileges", "--no-publications", "--no-subscriptions")
    dump = _run([str(tools / "pg_dump"), *options, "--exclude-schema=parallelchange"], source, source=source)
    _run([str(tools / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1"], target, source=source, stdin=dump)
    with connect(source) as there, connect(target) as here:
        # Foreign keys and triggers stay out of it: the rows are as they are.
        here.execute("SET session_replication_role = replica")
        with there.transaction():
            there.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            for schema, table, columns, key in there.execute(_TABLES).fetchall():
                _copy_rows(there, here, sql.Identifier(schema, table), columns or [], key or [], rows)
            _copy_sequences(there, here)
        _drop_orphans(here)
        here.execute("ANALYZE")


def _run(command: list[str], url: str, *, source: str, stdin: bytes | None = None) -> bytes:
    # A password on a command line is there for everybody on the machine to read.
    parts: dict[str, Any] = conninfo_to_dict(url)
    password = parts.pop("password", None)
    env = {**os.environ, **({"PGPASSWORD": str(password)} if password else {})}
    done = subprocess.run(
        [*command, "-d", make_conninfo(**parts)], input=stdin, capture_output=True, check=False, env=env
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise Unavailable(
            f"{describe_url(source)} cannot be copied for the rehearsal: {lines[-1]}",
            hint="the role needs to read every table, and its server must not be newer than the embedded one",
        )
    return done.stdout


def _copy_roles(source: str, target: str) -> None:
    """Roles by name only: policies name them."""
    with connect(source) as there, connect(target) as here:
        known = {row[0] for row in here.execute("SELECT rolname FROM pg_roles")}
        for (role,) in there.execute("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'").fetchall():
            if role not in known:
                here.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))


def _copy_rows(
    there: Connection, here: Connection, table: sql.Identifier, columns: list[str], key: list[str], rows: int
) -> None:
    if not columns:
        return
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    order = sql.SQL(" ORDER BY {}").format(sql.SQL(", ").join(map(sql.Identifier, key))) if key else sql.SQL("")
    out = sql.SQL("COPY (SELECT {} FROM {}{} LIMIT {}) TO STDOUT").format(names, table, order, sql.Literal(rows))
    into = sql.SQL("COPY {} ({}) FROM STDIN").format(table, names)
    with there.cursor().copy(out) as reading, here.cursor().copy(into) as writing:
        for block in reading:
            writing.write(block)


def _copy_sequences(there: Connection, here: Connection) -> None:
    for schema, name, last in there.execute(
        "SELECT schemaname, sequencename, last_value FROM pg_sequences"
        " WHERE last_value IS NOT NULL AND schemaname <> 'parallelchange'"
    ).fetchall():
        named = sql.Identifier(schema, name).as_string(here)
        here.execute("SELECT setval(%s::regclass, %s)", (named, last))


def _drop_orphans(here: Connection) -> None:
    """A row whose parent was not taken goes, and then the rows below it."""
    keys = here.execute(_FOREIGN_KEYS).fetchall()
    gone = True
    while gone:
        gone = False
        for child_schema, child, parent_schema, parent, own, other in keys:
            pairs = sql.SQL(" AND ").join(
                sql.SQL("p.{} = c.{}").format(sql.Identifier(b), sql.Identifier(a))
                for a, b in zip(own, other, strict=True)
            )
            whole = sql.SQL(" AND ").join(sql.SQL("c.{} IS NOT NULL").format(sql.Identifier(a)) for a in own)
            deleted = here.execute(
                sql.SQL("DELETE FROM {} c WHERE {} AND NOT EXISTS (SELECT FROM {} p WHERE {})").format(
                    sql.Identifier(child_schema, child), whole, sql.Identifier(parent_schema, parent), pairs
                )
            )
            gone = gone or deleted.rowcount > 0
