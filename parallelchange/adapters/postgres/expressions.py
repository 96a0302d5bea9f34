"""Asking the server whether the change file's expressions make sense, before anything is done."""

from __future__ import annotations

import psycopg

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.change import Change
from parallelchange.errors import InvalidFile
from parallelchange.model import Catalog
from parallelchange.operations import Expression
from parallelchange.sql import ident, search_path

__all__ = ["check_expressions"]


def check_expressions(connection: Connection, change: Change, base: Catalog) -> None:
    """Parse each expression over the columns it may use; nothing is executed.

    Raises:
        InvalidFile: PostgreSQL does not accept one; names its line in the change file.
    """
    for index, operation in enumerate(change.database):
        table = base.tables[operation.table_name]
        for expression in operation.expressions(table):
            error = _refused(connection, table.name.schema, table.name.name, expression)
            if error:
                raise InvalidFile(
                    f"`{expression.key}`: `{expression.sql}` is refused by PostgreSQL: {error}",
                    path=change.path,
                    line=change.line_of("database", index, operation.kind, expression.key),
                    hint=f"it may use the columns {', '.join(expression.over) or '(none)'}",
                )


def _refused(connection: Connection, schema: str, table: str, expression: Expression) -> str | None:
    columns = ", ".join(f"NULL::{type_} AS {ident(name)}" for name, type_ in expression.over.items()) or "1"
    # In WHERE, because what is refused there (sets, aggregates, windows) would be refused in an UPDATE too.
    source = f"SELECT FROM (SELECT {columns}) AS {ident(table)} WHERE ({expression.sql}) IS NULL"
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(f"SET LOCAL search_path = {search_path(schema)}")
            result = connection.pgconn.prepare(b"", source.encode())
            if result.status == psycopg.pq.ExecStatus.COMMAND_OK:
                return None
            return str(result.error_message.decode().strip().splitlines()[0]).removeprefix("ERROR:").strip()
    except psycopg.Error as error:
        return str(error).splitlines()[0]
