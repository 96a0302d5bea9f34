"""Preparing and describing statements: what the server says of them without running them."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg.pq import ExecStatus

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.corpus import Corpus
from parallelchange.gates.prepare import StatementFact
from parallelchange.sqltext import Kind

__all__ = ["Describer", "prepare_all"]


class Describer:
    """Describes statements on one session, with the names of types kept.

    Args:
        connection: An autocommit session: a statement that fails leaves nothing behind.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._names: dict[tuple[int, int], str] = {}

    def describe(self, sql: str, types: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Prepare a statement and tell its shape.

        Args:
            sql: The statement.
            types: Types of its parameters; where too few are given the server infers the rest.

        Returns:
            Its columns as `name type`, and the types of its parameters.

        Raises:
            psycopg.Error: The server refuses it.
        """
        pg = self.connection.pgconn
        oids = [self._oid(type_) for type_ in types]
        result = pg.prepare(b"", sql.encode(), oids or None)
        if result.status == ExecStatus.COMMAND_OK:
            result = pg.describe_prepared(b"")
        if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
            message = result.error_message.decode(errors="replace").strip()
            raise psycopg.ProgrammingError(message.splitlines()[0].removeprefix("ERROR:").strip())
        columns = [((result.fname(i) or b"").decode(), result.ftype(i), result.fmod(i)) for i in range(result.nfields)]
        parameters = [result.param_type(i) for i in range(result.nparams)]
        shown = tuple(f"{name} {self._name(oid, mod)}" for name, oid, mod in columns)
        return shown, tuple(self._name(oid, -1) for oid in parameters)

    def _oid(self, type_: str) -> int:
        row = self.connection.execute("SELECT to_regtype(%s)::oid::int8", (type_,)).fetchone()
        return int(row[0]) if row and row[0] else 0

    def _name(self, oid: int, mod: int) -> str:
        if (oid, mod) not in self._names:
            row = self.connection.execute("SELECT format_type(%s, %s)", (oid, mod)).fetchone()
            assert row is not None
            self._names[oid, mod] = str(row[0])
        return self._names[oid, mod]


def prepare_all(connection: Connection, corpus: Corpus) -> list[StatementFact]:
    """Prepare each recorded statement on the schema as it stands."""
    describer = Describer(connection)
    facts = []
    for statement in corpus.statements:
        error, found, unasked = None, None, statement.unasked
        if statement.kind is Kind.UTILITY:
            unasked = "it cannot be prepared"
        try:
            if not unasked:
                text = statement.text(corpus.examples.get(statement.id))
                found, _ = describer.describe(text, statement.types)
        except psycopg.OperationalError as lost:
            if connection.closed:
                raise
            error = str(lost)
        except psycopg.Error as refused:
            error = str(refused)
        facts.append(
            StatementFact(statement.id, statement.sql, statement.where, statement.columns, error, found, unasked)
        )
    return facts
