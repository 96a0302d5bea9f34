"""The shape of a statement: its columns and the types of its parameters, and how types are called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.adapters.postgres.pipeline import message_of

__all__ = ["FINE", "Column", "Describer", "Types", "columns_of"]

FINE = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
"""What the server answers when it has not refused."""

Column = tuple[str, int, int]
"""Name, type and modifier of a result's column."""

_OIDS = "SELECT name, coalesce(to_regtype(name)::oid::int8, 0) FROM unnest(%s::text[]) name"
_NAMES = """
SELECT id, mod, format_type(id::oid, mod) FROM unnest(%s::int8[], %s::int4[]) AS told(id, mod)
"""
_UNTOLD = "unknown"  # what the recording calls a type that nothing told


class Types:
    """Types by their names and names by their types; a name is told as a session with an empty search_path has it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._oids: dict[str, int] = {}
        self._names: dict[tuple[int, int], str] = {}

    def oids(self, types: Iterable[str]) -> list[int]:
        """Each type's oid; 0, for the server to infer it, where there is no such type."""
        wanted = list(types)
        if new := sorted(set(wanted) - self._oids.keys()):
            try:
                self._oids.update(self.connection.execute(_OIDS, (new,)).fetchall())
            except psycopg.Error:
                # Text that is no type's name at all is an error to some servers.
                for one in new:
                    self._oids[one] = self._oid(one)
        return [self._oids[type_] for type_ in wanted]

    def _oid(self, type_: str) -> int:
        try:
            row = self.connection.execute(_OIDS, ([type_],)).fetchone()
        except psycopg.Error:
            return 0
        return int(row[1]) if row else 0

    def gone(self, types: Sequence[str]) -> str | None:
        """The first of these types that there is not; None when there are all of them."""
        known = zip(types, self.oids(types), strict=True)
        return next((name for name, oid in known if not oid and name != _UNTOLD), None)

    def names(self, found: Iterable[tuple[int, int]]) -> dict[tuple[int, int], str]:
        """How each type with its modifier is called."""
        if new := sorted(set(found) - self._names.keys()):
            with self.connection.transaction(force_rollback=True):
                self.connection.execute("SET LOCAL search_path = ''")
                rows = self.connection.execute(_NAMES, ([oid for oid, _ in new], [mod for _, mod in new]))
                self._names.update({(int(oid), int(mod)): str(name) for oid, mod, name in rows})
        return self._names


class Describer:
    """Describes statements on one session, with the names of types kept.

    Args:
        connection: An autocommit session: a statement that fails leaves nothing behind.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._types = Types(connection)

    def describe(self, sql: str, types: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Prepare a statement and tell its shape.

        Args:
            sql: The statement.
            types: Types of its parameters; where too few are given the server infers the rest.

        Returns:
            Its columns as `name type`, and the types of its parameters. Types that are not the server's own have
            their schema before them, so that they read the same whatever a session's search_path is.

        Raises:
            psycopg.Error: The server refuses it.
        """
        pg = self.connection.pgconn
        result = pg.prepare(b"", sql.encode(), self._types.oids(types) or None)
        if result.status == ExecStatus.COMMAND_OK:
            result = pg.describe_prepared(b"")
        if result.status not in FINE:
            raise psycopg.ProgrammingError(message_of(result))
        columns = columns_of(result)
        parameters = [(result.param_type(i), -1) for i in range(result.nparams)]
        names = self._types.names([*((oid, mod) for _, oid, mod in columns), *parameters])
        return tuple(f"{name} {names[oid, mod]}" for name, oid, mod in columns), tuple(names[one] for one in parameters)


def columns_of(result: PGresult) -> tuple[Column, ...]:
    """Columns of a result, or of a statement that was described."""
    return tuple(((result.fname(i) or b"").decode(), result.ftype(i), result.fmod(i)) for i in range(result.nfields))
