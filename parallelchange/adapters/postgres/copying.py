"""The data for a recorded COPY … FROM STDIN, which no log has: one row that fits."""

from __future__ import annotations

import psycopg
from psycopg import sql
from psycopg.pq import ExecStatus

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.adapters.postgres.rows import one_row, read_row_facts
from parallelchange.model import TableName
from parallelchange.sqltext import tokens

__all__ = ["copy_data"]


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
