"""A session that sees names as a version's own sessions do, to ask about its statements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from parallelchange.adapters.postgres.connection import Connection, connect
from parallelchange.adapters.postgres.role_settings import role_settings
from parallelchange.errors import Unavailable

__all__ = ["AskingSession", "asking_session"]

_SETTINGS = {
    "lock_timeout": "2s",
    "statement_timeout": "60s",
    "client_encoding": "UTF8",
    "default_transaction_read_only": "on",
    "plan_cache_mode": "force_generic_plan",
    # Ours is off so that laws see every row or fail; the version's sessions have policies applied.
    "row_security": "on",
}
_OURS = """
SELECT CASE WHEN source IN ('default', 'configuration file') THEN setting ELSE '"$user", public' END
FROM pg_settings WHERE name = 'search_path'
"""


@dataclass(frozen=True)
class AskingSession:
    """One session, and whose it is.

    Args:
        connection: The session.
        as_version: Whether its privileges are those of the version's declared role.
    """

    connection: Connection
    as_version: bool


@contextmanager
def asking_session(url: str, role: str | None) -> Iterator[AskingSession]:
    """Open a session that only reads; it is closed at the end, and nothing of it stays.

    Args:
        url: The database.
        role: The version's role; None for ours.

    Raises:
        Unavailable: The database does not answer, or has no such role.
    """
    with connect(url, **_SETTINGS) as connection:
        yield AskingSession(connection, role is not None and _become(connection, role))


def _become(connection: Connection, role: str) -> bool:
    """Look at names as the role does, and take on its privileges where we may."""
    if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
        raise Unavailable(f"there is no role {role}", hint="correct `role` of the version in the change file")
    path = role_settings(connection, role).get("search_path")
    if path is None:
        row = connection.execute(_OURS).fetchone()
        path = str(row[0]) if row else ""
    try:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        became = True
    except psycopg.errors.InsufficientPrivilege:
        became = False
        own = sql.Identifier(role).as_string(connection)
        path = ", ".join(own if part.strip() in ('"$user"', "$user") else part.strip() for part in path.split(","))
    connection.execute("SELECT set_config('search_path', %s, false)", (path,))
    return became
