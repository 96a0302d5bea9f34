"""Where sequences stand. No rollback puts them back, so those who run statements on a copy do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import sql

from parallelchange.adapters.postgres.connection import Connection

__all__ = ["kept_sequences"]

_ALL = "SELECT schemaname, sequencename FROM pg_sequences WHERE schemaname !~ '^pg_' ORDER BY 1, 2"


@contextmanager
def kept_sequences(connection: Connection) -> Iterator[None]:
    """Put every sequence back at the end to where it was at the beginning.

    Args:
        connection: An autocommit session that may set them, outside of any transaction at both ends.
    """
    names = [sql.Identifier(*row) for row in connection.execute(_ALL).fetchall()]
    stood = [connection.execute(sql.SQL("SELECT last_value, is_called FROM {}").format(n)).fetchone() for n in names]
    try:
        yield
    finally:
        if not connection.closed:
            # A database may begin every transaction of its sessions read-only.
            connection.execute("SET default_transaction_read_only = off")
        for name, at in zip(names, stood, strict=True):
            if at is not None and not connection.closed:
                connection.execute("SELECT setval(%s::regclass, %s, %s)", (name.as_string(connection), *at))
