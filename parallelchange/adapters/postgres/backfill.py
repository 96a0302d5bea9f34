"""The backfill: set-based UPDATEs along the key, one pass, resumable after any kill."""

from __future__ import annotations

import time
from collections.abc import Callable

from psycopg.types.json import Jsonb

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.model import Backfill, Table
from parallelchange.operations.trigger import STANDS_ASIDE
from parallelchange.ports import Progress
from parallelchange.sql import columns, ident, literal, qualified, search_path

__all__ = ["BatchSize", "run_backfill"]

_FIRST, _FLOOR, _CEILING = 1000, 10, 100_000
_TARGET = 0.2
"""Seconds a batch should take: its row locks are held no longer."""


class BatchSize:
    """Aims batches at a time: grows by half at most, and falls to a tenth at once when far too slow.

    Args:
        rows: Size of the first batch.
        limit: Upper bound in rows.
    """

    def __init__(self, rows: int = _FIRST, limit: int = _CEILING) -> None:
        self.limit = max(_FLOOR, min(_CEILING, limit))
        self.rows = min(rows, self.limit)

    def took(self, seconds: float) -> None:
        """Learn from a batch that took that long."""
        ratio = _TARGET / max(seconds, 1e-6)
        factor = 0.1 if ratio < 0.2 else min(ratio, 1.5)  # noqa: PLR2004 - five times too slow
        self.rows = max(_FLOOR, min(self.limit, int(self.rows * factor) or _FLOOR))


def run_backfill(
    connection: Connection,
    change: str,
    work: Backfill,
    table: Table,
    *,
    rows_per_second: int | None,
    progress: Progress,
    sleep: Callable[[float], None] = time.sleep,
    incarnation: str = "",
) -> None:
    """Fill the rows that are still empty, from where the ledger says an earlier run stopped.

    Args:
        connection: An autocommit session.
        change: The change's name.
        work: The pass.
        table: The table as the plan knows it, for the key's types.
        rows_per_second: Upper limit; None for none.
        progress: Told after each batch.
        sleep: How to wait.
        incarnation: Of the expand whose columns are filled; what was recorded of another one does not count.
    """
    at = qualified(work.table.schema, work.table.name)
    total = _begin(connection, change, work, at, incarnation)
    size = BatchSize(limit=max(1, int(rows_per_second * _TARGET)) if rows_per_second else _CEILING)
    while True:
        begun = time.monotonic()
        step = _batch(connection, change, work, table, size.rows)
        if step is None:
            return
        seen, done = step
        took = time.monotonic() - begun
        size.took(took)
        progress(work.id, done, total)
        if rows_per_second:
            sleep(max(0.0, seen / rows_per_second - took))


def _begin(connection: Connection, change: str, work: Backfill, at: str, incarnation: str) -> int | None:
    """Record the pass, once, with the number of rows to go over for the time left."""
    row = connection.execute(
        "SELECT total FROM parallelchange.backfill WHERE change = %s AND pass = %s AND incarnation = %s",
        (change, work.id, incarnation),
    ).fetchone()
    if row is None:
        counted = connection.execute(f"SELECT count(*) FROM {at}").fetchone()
        row = connection.execute(
            "INSERT INTO parallelchange.backfill AS b (change, pass, incarnation, total) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (change, pass) DO UPDATE SET incarnation = EXCLUDED.incarnation, total = EXCLUDED.total,"
            " cursor = NULL, rows = 0, started_at = now(), finished_at = NULL RETURNING total",
            (change, work.id, incarnation, counted[0] if counted else None),
        ).fetchone()
    return int(row[0]) if row and row[0] is not None else None


def _text(sql: str) -> str:
    """SQL as it stands, in a query that has parameters."""
    return sql.replace("%", "%%")


def _batch(connection: Connection, change: str, work: Backfill, table: Table, limit: int) -> tuple[int, int] | None:
    """One batch and its cursor, in one transaction.

    A row that a version writes while the batch waits for it is looked at again by the server
    (READ COMMITTED), and passed over when it is filled by then.

    Returns:
        Rows gone over in this batch and in all; None when the pass is finished.
    """
    at, key = _text(qualified(work.table.schema, work.table.name)), _text(columns(work.key))
    types = [column.type for name in work.key if (column := table.column(name))]
    bound = "(" + ", ".join(f"CAST(%s AS {_text(type_)})" for type_ in types) + ")"
    mine = (change, work.id)
    with connection.transaction():
        # LOCAL, so that behind a pooler no other session ever inherits them.
        connection.execute(f"SET LOCAL {STANDS_ASIDE} = {literal(change)}")
        connection.execute(f"SET LOCAL search_path = {search_path(work.table.schema)}")
        row = connection.execute(
            "SELECT cursor, rows, finished_at IS NOT NULL FROM parallelchange.backfill"
            " WHERE change = %s AND pass = %s FOR UPDATE",
            mine,
        ).fetchone()
        assert row is not None
        cursor, rows, finished = row
        if finished:
            return None
        after = f"WHERE ({key}) > {bound}" if cursor else ""
        shown = _text(", ".join(f"{ident(name)}::text" for name in work.key))
        backwards = _text(", ".join(f"batch.{ident(name)} DESC" for name in work.key))
        last = connection.execute(
            f"SELECT count(*) OVER (), {shown} FROM"
            f" (SELECT {key} FROM {at} {after} ORDER BY {key} LIMIT {int(limit)}) AS batch"
            f" ORDER BY {backwards} LIMIT 1",
            cursor or (),
        ).fetchone()
        if last is None:
            _finish(connection, mine, _left_behind(connection, work))
            return (0, rows) if _again(connection, mine) else None
        seen, upto = last[0], list(last[1:])
        sets = _text(", ".join(f"{ident(name)} = ({sql})" for name, sql in work.assign.items()))
        within = f"{after + ' AND' if cursor else 'WHERE'} ({key}) <= {bound}"
        unfilled = _text(work.unfilled)
        connection.execute(
            f"UPDATE {at} AS {_text(ident(work.table.name))} SET {sets} {within} AND {unfilled}",
            [*(cursor or ()), *upto],
        )
        connection.execute(
            "UPDATE parallelchange.backfill SET cursor = %s, rows = rows + %s WHERE change = %s AND pass = %s",
            (Jsonb(upto), seen, *mine),
        )
    return seen, rows + seen


def _left_behind(connection: Connection, work: Backfill) -> bool:
    """Whether rows are left to fill: one whose key was moved behind the cursor was passed over."""
    filled = " OR ".join(f"({sql}) IS NOT NULL" for sql in work.assign.values())
    at = qualified(work.table.schema, work.table.name)
    row = connection.execute(
        f"SELECT EXISTS (SELECT FROM {at} AS {ident(work.table.name)} WHERE {work.unfilled} AND ({filled}))"
    ).fetchone()
    return bool(row and row[0])


def _finish(connection: Connection, mine: tuple[str, str], again: bool) -> None:
    """Record the end of the pass, or go over the table once more."""
    what = "cursor = NULL" if again else "finished_at = now()"
    connection.execute(f"UPDATE parallelchange.backfill SET {what} WHERE change = %s AND pass = %s", mine)


def _again(connection: Connection, mine: tuple[str, str]) -> bool:
    row = connection.execute(
        "SELECT finished_at IS NULL FROM parallelchange.backfill WHERE change = %s AND pass = %s", mine
    ).fetchone()
    return bool(row and row[0])
