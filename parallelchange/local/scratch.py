"""An empty scratch database for a copy: in a server of our own, or beside others on a server that is named."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from parallelchange.adapters.postgres.connection import Connection, connect, describe_url
from parallelchange.errors import Unavailable
from parallelchange.local.postgres import client_programs, scratch_postgres

__all__ = ["ROLE_NOTE", "Scratch", "scratch_database"]

_PREFIX = "parallelchange_rehearsal_"
_NOTE = "parallelchange: a rehearsal copy, dropped when the rehearsal ends"
ROLE_NOTE = "parallelchange: made for a rehearsal copy, dropped with it"
"""Comment of the roles that a copy needed and this server did not have."""

_ABANDONED = """
SELECT d.datname FROM pg_database d
WHERE starts_with(d.datname, %s) AND shobj_description(d.oid, 'pg_database') = %s
  AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)
"""

_LOCALE = """
SELECT pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, coalesce(to_jsonb(d)->>'datlocprovider', 'c'),
  coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale')
FROM pg_database d WHERE d.datname = current_database()
"""

_PROVIDERS = {"i": ("icu", "ICU_LOCALE"), "b": ("builtin", "BUILTIN_LOCALE")}


@dataclass(frozen=True)
class Scratch:
    """A scratch database.

    Args:
        url: Its URL.
        tools: Folder of pg_dump, pg_restore and psql.
    """

    url: str
    tools: Path


@contextmanager
def scratch_database(source: str, on: str | None, tell: Callable[[str], None]) -> Iterator[Scratch]:
    """Make an empty database with the source's encoding and locale; it is dropped at the end.

    Args:
        source: The shared database.
        on: A database on the server to make it on; None for a server of our own.
        tell: Told what the user should know.

    Raises:
        Unavailable: It cannot be made there.
    """
    with ExitStack() as stack:
        if on is None:
            server = stack.enter_context(scratch_postgres())
            tools, near = server.bin, server.url()
        else:
            tools, near = client_programs(), on
        try:
            admin = stack.enter_context(connect(near))
        except Unavailable as error:
            raise Unavailable(
                f"the server to rehearse on: {error.message}",
                hint="check --on, PARALLELCHANGE_REHEARSAL_URL or rehearsal_url in parallelchange.toml",
            ) from None
        with connect(source) as there:
            locale = there.execute(_LOCALE).fetchone()
            if on is not None and _same_server(there, admin):
                tell(
                    "warning: the rehearsal runs on the server of the shared database, in a database of its own:"
                    " the load is shared"
                )
        _sweep(admin)
        name = _PREFIX + secrets.token_hex(6)
        stack.callback(_drop, near, name, tell)
        _create(admin, name, locale, near)
        url = _at(near, name)
        # A session that stays: whoever sweeps sees that this copy is in use.
        stack.enter_context(connect(url, idle_session_timeout="0"))
        admin.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(_NOTE)))
        yield Scratch(url, tools)


def _create(admin: Connection, name: str, locale: Any, near: str) -> None:
    encoding, collate, ctype, provider, named = locale
    create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {}").format(
        sql.Identifier(name), sql.Literal(encoding)
    )
    exact = sql.SQL("{} LC_COLLATE {} LC_CTYPE {}").format(create, sql.Literal(collate), sql.Literal(ctype))
    if provider in _PROVIDERS:
        word, option = _PROVIDERS[provider]
        exact = sql.SQL("{} LOCALE_PROVIDER {} {} {}").format(exact, sql.SQL(word), sql.SQL(option), sql.Literal(named))
    try:
        try:
            admin.execute(exact)
        except (psycopg.errors.WrongObjectType, psycopg.errors.InvalidParameterValue, psycopg.errors.SyntaxError):
            # The server does not have this locale; its own is the nearest there is.
            admin.execute(create)
    except psycopg.Error as error:
        raise Unavailable(
            f"no scratch database can be made beside {describe_url(near)}: {error.diag.message_primary or error}",
            hint="its role needs CREATEDB; without --on the rehearsal runs on the embedded server",
        ) from None


def _same_server(one: Connection, other: Connection) -> bool:
    """Whether both sessions are on one server: no two start in the same microsecond."""
    started = "SELECT pg_postmaster_start_time()::text"
    return one.execute(started).fetchone() == other.execute(started).fetchone()


def _sweep(admin: Connection) -> None:
    """Drop copies that a killed run has left: theirs is the name and the comment, and no session uses them."""
    for (name,) in admin.execute(_ABANDONED, (_PREFIX, _NOTE)).fetchall():
        with suppress(psycopg.Error):  # another run sweeps it this moment, or it is another user's
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
    _drop_roles(admin)


def _drop_roles(admin: Connection) -> None:
    """Drop the roles made for copies, when there is no copy that may need them."""
    copies = admin.execute("SELECT FROM pg_database WHERE starts_with(datname, %s)", (_PREFIX,)).fetchone()
    if copies is not None:
        return
    ours = "SELECT rolname FROM pg_roles WHERE shobj_description(oid, 'pg_authid') = %s"
    for (role,) in admin.execute(ours, (ROLE_NOTE,)).fetchall():
        with suppress(psycopg.Error):  # something else of this server has come to belong to it
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def _drop(near: str, name: str, tell: Callable[[str], None]) -> None:
    try:
        # A session of its own: the one that made the database may have died of what ended the rehearsal.
        with connect(near) as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
            _drop_roles(admin)
    except (Unavailable, psycopg.Error):
        tell(f"warning: the scratch database {name} could not be dropped; the next rehearsal there does it")


def _at(url: str, database: str) -> str:
    """The URL of another database on the same server, still as a URL."""
    parts = {key: str(value) for key, value in conninfo_to_dict(url).items() if value is not None}
    parts["dbname"] = database
    user, password = parts.pop("user", None), parts.pop("password", None)
    who = quote(user, safe="") if user else ""
    if password:
        who += ":" + quote(password, safe="")
    name = quote(parts.pop("dbname"), safe="")
    return f"postgresql://{who + '@' if who else ''}/{name}?{urlencode(parts, quote_via=quote)}"
