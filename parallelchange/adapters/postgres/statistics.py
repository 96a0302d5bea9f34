"""pg_stat_statements: which statements a server was sent, without their values."""

from __future__ import annotations

import psycopg
from psycopg import sql

from parallelchange.adapters.postgres.calls import statistics_schema
from parallelchange.adapters.postgres.connection import connect, describe_url
from parallelchange.errors import Unavailable
from parallelchange.recording import Event
from parallelchange.sqltext import Kind, kind_of

__all__ = ["read_statistics"]

_HINT = "CREATE EXTENSION pg_stat_statements, and have it in shared_preload_libraries"


def read_statistics(url: str) -> tuple[list[Event], int]:
    """What clients have sent to this database.

    Returns:
        The statements that can be prepared, and how many others there are.

    Raises:
        Unavailable: The server does not answer, or has no pg_stat_statements that we may read.
    """
    with connect(url) as connection:
        schema = statistics_schema(connection)
        if schema is None:
            raise Unavailable(f"{describe_url(url)} has no pg_stat_statements", hint=_HINT)
        query = sql.SQL(
            "SELECT DISTINCT s.query FROM {}.pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid"
            " WHERE d.datname = current_database() AND coalesce((to_jsonb(s) ->> 'toplevel')::boolean, true)"
            " AND s.query IS NOT NULL AND s.query <> '<insufficient privilege>' ORDER BY 1"
        ).format(schema)
        try:
            texts = [str(found[0]) for found in connection.execute(query)]
        except psycopg.Error as error:
            told = str(error).splitlines()[0]
            raise Unavailable(f"pg_stat_statements of {describe_url(url)}: {told}", hint=_HINT) from None
    events = [Event("pg_stat_statements", text) for text in texts if kind_of(text) is not Kind.UTILITY]
    return events, len(texts) - len(events)
