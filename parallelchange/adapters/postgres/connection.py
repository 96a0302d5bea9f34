"""Opening sessions. No message from here ever holds a password."""

from __future__ import annotations

import ipaddress
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from parallelchange.errors import Unavailable
from parallelchange.sql import PINNED

__all__ = ["APPLICATION", "Connection", "connect", "database_of", "describe_url", "session_parameters"]

Connection = psycopg.Connection[TupleRow]

APPLICATION = "parallelchange"
UNTOLD = "the database"


def describe_url(url: str) -> str:
    """Where a URL leads, without user and password: `database shop on 10.0.0.5:5432`."""
    try:
        parts = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        return UNTOLD
    host, name = str(parts.get("host") or "the local socket"), str(parts.get("dbname") or "default")
    port = str(parts.get("port") or "")
    odd = "@" in host + name or ":" in name or not set(port) <= set("0123456789,")
    if odd or (":" in host and not _is_address(host)):
        return UNTOLD  # a slip in the URL puts the password where these should be
    return f"database {name} on {host}" + (f":{port}" if port else "")


def database_of(url: str) -> str:
    """Name of the database a URL leads to.

    Raises:
        Unavailable: The server does not answer.
    """
    with connect(url) as connection:
        return connection.info.dbname


def _is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def connect(url: str, **settings: str) -> Connection:
    """Open an autocommit session of ours.

    Args:
        url: libpq URL or DSN.
        settings: Server settings of the session besides ours.

    Raises:
        Unavailable: The server does not answer or does not let us in.
    """
    try:
        return psycopg.connect(url, autocommit=True, **session_parameters(url, **settings))
    except psycopg.ProgrammingError:
        # libpq's message quotes the URL, and with it the password.
        raise Unavailable(
            "the database URL cannot be read",
            hint="write it as postgresql://user:password@host:5432/name; encode special characters of the password",
        ) from None
    except psycopg.OperationalError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        if describe_url(url) == UNTOLD:
            lines = ["its URL is not as it should be"]
        # A line that begins with a tab is libpq's advice; the one before it says what happened.
        last = next((line for line in reversed(lines) if not line.startswith("\t")), lines[-1])
        told = last.rsplit(" failed: ", 1)[-1] if " failed: " in last else last.split(": ", 1)[-1]
        reason = " ".join(told.split()) if "password" not in last.lower() else "it does not let us in"
        raise Unavailable(
            f"{describe_url(url)} does not answer: {reason}",
            hint="check PARALLELCHANGE_DATABASE_URL or database_url in parallelchange.toml, and that the server runs",
        ) from None


def session_parameters(url: str, **settings: str) -> dict[str, Any]:
    """What every session of ours is opened with.

    Row security would hide rows from laws and backfill instead of failing; the other settings decide how
    values are written as text, and must be the same wherever one shape is computed from the other. Sessions stand
    idle while a rehearsal or a soak lasts, and are not to be ended meanwhile.
    """
    ours = {**PINNED, "row_security": "off", "idle_session_timeout": "0", **settings}
    options = " ".join(f"-c {name}={value}" for name, value in ours.items())
    given = psycopg.conninfo.conninfo_to_dict(url).get("options") or ""
    return {"application_name": APPLICATION, "connect_timeout": 10, "options": f"{given} {options}".strip()}
