"""Many commands in one round trip, by libpq's pipeline mode."""

from __future__ import annotations

import select
from collections.abc import Sequence

import psycopg
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from parallelchange.adapters.postgres.connection import Connection

__all__ = ["Ask", "Prepare", "Run", "message_of", "pipelined", "sqlstate_of"]

Run = bytes
"""A command without parameters."""

Prepare = tuple[bytes, bytes, Sequence[int]]
"""Name, text and parameter types (0: the server infers it) of a statement to prepare and describe."""

Ask = Run | Prepare


def message_of(result: PGresult) -> str:
    """What PostgreSQL said of a command that failed."""
    said = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or result.error_message
    return said.decode(errors="replace").strip()


def sqlstate_of(result: PGresult) -> str:
    """The code of its error; empty when it did not fail."""
    return (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()


def pipelined(connection: Connection, *segments: Sequence[Ask]) -> list[list[list[PGresult]]]:
    """Send commands at once; in a segment, what follows a command that failed is not run.

    Args:
        connection: A session on which nothing else is going on.
        segments: Each ends with a sync.

    Returns:
        For each segment and command its results: two for one that is prepared and described.

    Raises:
        psycopg.OperationalError: The session was lost.
    """
    pg = connection.pgconn
    pg.enter_pipeline_mode()
    blocking, pg.nonblocking = pg.nonblocking, 1
    try:
        for segment in segments:
            for ask in segment:
                _send(pg, ask)
            pg.pipeline_sync()
        _flush(pg)
        found = []
        for segment in segments:
            found.append([_results(pg, 1 if isinstance(ask, bytes) else 2) for ask in segment])
            _synced(pg)
        pg.exit_pipeline_mode()
    finally:
        pg.nonblocking = blocking
    return found


def _send(pg: PGconn, ask: Ask) -> None:
    if isinstance(ask, bytes):
        pg.send_query_params(ask, None)
        return
    name, text, types = ask
    pg.send_prepare(name, text, types or None)
    pg.send_describe_prepared(name)


def _flush(pg: PGconn) -> None:
    """Send all, and take in meanwhile what comes: else both sides could wait for the other to read."""
    while pg.flush():
        readable, _, _ = select.select([pg.socket], [pg.socket], [])
        if readable:
            pg.consume_input()


def _results(pg: PGconn, commands: int) -> list[PGresult]:
    found: list[PGresult] = []
    for _ in range(commands):
        while (result := pg.get_result()) is not None:
            found.append(result)
            if result.status == ExecStatus.FATAL_ERROR and not sqlstate_of(result):
                raise psycopg.OperationalError(message_of(result) or "the session was lost")
    return found


def _synced(pg: PGconn) -> None:
    result = pg.get_result()
    if result is None or result.status != ExecStatus.PIPELINE_SYNC:
        raise psycopg.OperationalError("the session was lost in the midst of a pipeline")
