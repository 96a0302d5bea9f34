"""Holding the laws of a change against every row."""

from __future__ import annotations

import psycopg
from psycopg.rows import dict_row

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.gates.laws import LawFact
from parallelchange.model import Law, State
from parallelchange.sql import columns, ident, qualified, search_path

__all__ = ["measure_law"]

_EXAMPLES = 5
_LONGEST = 80


def measure_law(connection: Connection, law: Law, state: State) -> LawFact:
    """Count the rows that break a law.

    Args:
        connection: A session; in a transaction the rows are those the transaction sees.
        law: The law.
        state: Before expand the new shape is computed, after it is read.
    """
    foretold = state is State.BASE
    table = qualified(law.table.schema, law.table.name)
    alias = ident(law.table.name)
    if foretold and law.derived:
        derived = ", ".join(f"({sql}) AS {ident(name)}" for name, sql in law.derived.items())
        source = f"(SELECT {alias}.*, {derived} FROM {table} AS {alias}) AS {alias}"
    else:
        source = f"{table} AS {alias}"
    broken = f"({law.foretold if foretold else law.holds}) IS NOT TRUE"
    shows = law.shows if law.derived or not foretold else [name for name in law.shows if name not in law.derived]
    try:
        with connection.transaction(force_rollback=True), connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(f"SET LOCAL search_path = {search_path(law.table.schema)}")
            # The conditions are the change file's own SQL, accepted by the server when the plan was made.
            cursor.execute(f"SELECT count(*) AS rows, count(*) FILTER (WHERE {broken}) AS broken FROM {source}")
            counts = cursor.fetchone()
            assert counts is not None
            rows = []
            if counts["broken"]:
                cursor.execute(f"SELECT {columns(shows)} FROM {source} WHERE {broken} LIMIT {_EXAMPLES}")
                rows = [{name: _short(value) for name, value in row.items()} for row in cursor]
    except psycopg.Error as error:
        reason = str(error).splitlines()[0]
        return LawFact(law.id, law.says, str(law.table), 0, None, error=reason, foretold=foretold)
    return LawFact(law.id, law.says, str(law.table), counts["rows"], counts["broken"], rows, foretold=foretold)


def _short(value: object) -> object:
    text = str(value)
    return value if value is None or isinstance(value, (int, float)) or len(text) < _LONGEST else text[:_LONGEST] + "…"
