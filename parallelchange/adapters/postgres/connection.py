"""Opening sessions. No message from here ever holds a password."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import TupleRow

from parallelchange.errors import Unavailable

__all__ = ["Connection", "connect", "describe_url"]

Connection = psycopg.Connection[TupleRow]

APPLICATION = "parallelchange"


def describe_url(url: str) -> str:
    """Where a URL leads, without user secrets: `shop on 10.0.0.5:5432`."""
    try:
        parts = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        return "the database (its URL cannot be read)"
    host = parts.get("host") or "the local socket"
    port = f":{parts['port']}" if parts.get("port") else ""
    return f"database {parts.get('dbname') or 'default'} on {host}{port}"


def connect(url: str, **settings: Any) -> Connection:
    """Open an autocommit session.

    Args:
        url: libpq URL or DSN.
        settings: Server settings of the session, such as `lock_timeout`.

    Raises:
        Unavailable: The server does not answer or does not let us in.
    """
    options = " ".join(f"-c {name}={value}" for name, value in settings.items()) or None
    try:
        # None leaves what the URL or the environment says of it.
        parameters: dict[str, Any] = {"options": options} if options else {}
        return psycopg.connect(url, autocommit=True, application_name=APPLICATION, connect_timeout=10, **parameters)
    except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        reason = reason.split(": ", 1)[-1] if "password" not in reason.lower() else "it does not accept the password"
        raise Unavailable(
            f"{describe_url(url)} does not answer: {reason}",
            hint="check PARALLELCHANGE_DATABASE_URL or database_url in parallelchange.toml, and that the server runs",
        ) from None
