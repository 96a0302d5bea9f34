"""What really becomes of the old version's statements when somebody changes the schema under its live sessions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from helpers.breakage_ddl import DDL
from helpers.breakage_schema import APP, OWNER, ROLES, ROWS, SCHEMA
from helpers.breakage_uses import USES, Sent, Use
from parallelchange.local.postgres import EmbeddedPostgres

__all__ = ["APPLICATION", "WARM", "Seen", "Session", "Truth", "apply", "clone", "make_shop", "sessions", "truths"]

APPLICATION = "shop-v1"
WARM = 12
"""Times that a session has sent its statement before: psycopg prepares the sixth, PostgreSQL keeps the plan of the
sixth that is prepared."""

# What `pg_stat_user_tables` says, without its joins.
_WRITTEN = """
SELECT coalesce(sum(pg_stat_get_tuples_inserted(oid) + pg_stat_get_tuples_updated(oid)
                    + pg_stat_get_tuples_deleted(oid)), 0)::int
FROM pg_class WHERE relkind = 'r' AND oid >= 16384
"""


@dataclass(frozen=True)
class Seen:
    """What came of one sending.

    Args:
        error: SQLSTATE and message; empty when it worked.
        columns: Of each result, its columns' names, types and modifiers.
        rows: Of each result, how many rows it gave or wrote.
        written: Rows written to any table by it, and by all that it sets off.
    """

    error: str = ""
    columns: tuple[tuple[tuple[str, int, int], ...], ...] = ()
    rows: tuple[int, ...] = ()
    written: int = 0


@dataclass(frozen=True)
class Truth:
    """One kind of statement under one kind of DDL.

    Args:
        before: In the live session, before the DDL.
        live: In the same session, after it.
        new: In a session that was opened after it.
    """

    before: Seen
    live: Seen
    new: Seen

    @property
    def broken(self) -> str:
        """In which way it is broken; empty when it is fine."""
        told = {"live": _worse(self.before, self.live), "new": _worse(self.before, self.new)}
        same = set(told.values())
        if len(same) == 1:
            return same.pop()
        return "; ".join(f"{session} session: {why or 'fine'}" for session, why in told.items())


def _worse(before: Seen, after: Seen) -> str:
    if after.error:
        return after.error
    if after.columns != before.columns:
        return f"other columns: {after.columns}"
    if len(before.rows) != len(after.rows) or any(b and not a for b, a in zip(before.rows, after.rows, strict=True)):
        return f"silently nothing: {before.rows} rows before, {after.rows} after"
    if before.written and not after.written:
        return f"silently nothing: wrote {before.written} rows before, none after"
    return ""


class Session:
    """A session of the old version.

    Args:
        url: Of the database, as the app's role.
        uses: What it sends; those that set something for their session have one to themselves.
    """

    def __init__(self, url: str, uses: Sequence[Use]) -> None:
        self.uses = uses
        self.connection = psycopg.connect(url, autocommit=True, application_name=APPLICATION)
        try:
            for statement in (text for use in uses for text in use.first):
                self.connection.execute(statement)
        except psycopg.Error:
            self.connection.close()
            raise

    def send(self, use: Use, time: int) -> Seen:
        """Send it once more; an error is an answer, too."""
        columns: list[Any] = []
        rows: list[int] = []
        try:
            with self.connection.transaction() if use.transaction else nullcontext():
                for sent in use.sent:
                    for found, count in _answers(self.connection, sent, time):
                        columns.append(found)
                        rows.append(count)
        except psycopg.Error as error:
            return _refused(error)
        return Seen("", tuple(columns), tuple(rows))

    def close(self) -> None:
        self.connection.close()


def _refused(error: psycopg.Error) -> Seen:
    return Seen(f"{error.sqlstate} {error.diag.message_primary or error}")


class _Counter:
    """Counts the rows that are written, whatever the driver is told.

    Args:
        owner: A session that sends nothing else, on a database where only one session at a time does anything.
    """

    def __init__(self, owner: psycopg.Connection[Any]) -> None:
        self.owner = owner
        self.last = 0

    def send(self, session: Session, use: Use, time: int) -> Seen:
        seen = session.send(use, time)
        return replace(seen, written=self.since(session))

    def since(self, session: Session) -> int:
        """Rows written since it was last asked, by this session alone."""
        session.connection.execute("SELECT pg_stat_force_next_flush()", prepare=False)
        row = self.owner.execute(_WRITTEN).fetchone()
        assert row is not None
        before, self.last = self.last, int(row[0])
        return self.last - before


def sessions(url: str) -> Iterator[Session]:
    """The sessions of the old version, one for all that can share it."""
    yield Session(url, [use for use in USES if use.shared])
    for use in USES:
        if not use.shared:
            yield Session(url, [use])


def _answers(connection: psycopg.Connection[Any], sent: Sent, time: int) -> Iterator[tuple[Any, int]]:
    with connection.cursor() as cursor:
        if sent.sql.startswith("COPY"):
            with cursor.copy(sent.sql) as copy:
                if sent.rows is None:
                    yield (), sum(1 for _ in copy)
                    return
                for row in sent.rows(time):
                    copy.write_row(row)
            yield (), cursor.rowcount
            return
        cursor.execute(sent.sql, sent.values(time) or None, prepare=sent.prepare)
        more: bool | None = True
        while more:
            result = cursor.pgresult
            assert result is not None
            names = ((result.fname(i) or b"", result.ftype(i), result.fmod(i)) for i in range(result.nfields))
            yield tuple((name.decode(), type_, modifier) for name, type_, modifier in names), max(cursor.rowcount, 0)
            more = cursor.nextset()


def make_shop(server: EmbeddedPostgres, name: str) -> None:
    """The shop's database, as of the old version, and the roles of the server it needs."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(ROLES)
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(OWNER)))
    with psycopg.connect(server.url(name), autocommit=True) as connection:
        connection.execute("ALTER SCHEMA public OWNER TO shop_owner")
    with psycopg.connect(server.url(name, OWNER), autocommit=True) as connection:
        connection.execute(SCHEMA)
        connection.execute(ROWS)
        connection.execute("ANALYZE")


@contextmanager
def clone(server: EmbeddedPostgres, source: str, name: str) -> Iterator[str]:
    """A copy of a database, dropped at the end; answers its name."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(*map(sql.Identifier, (name, source, OWNER)))
        )
    try:
        yield name
    finally:
        server.drop_database(name)


def apply(url: str, ddl: str) -> None:
    """Do it to the schema, committed, within a second or not at all."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET lock_timeout = '1s'")
        connection.execute(DDL[ddl])


def truths(server: EmbeddedPostgres, database: str, ddl: str) -> dict[str, Truth]:
    """What becomes of every kind of statement when this is done to the schema.

    Args:
        server: The server.
        database: A clone of the shop for this one DDL.
        ddl: Kind of DDL.

    Returns:
        By the name of the use.
    """
    url = server.url(database, APP)
    found: dict[str, Truth] = {}
    with psycopg.connect(server.url(database), autocommit=True) as owner, ExitStack() as open_:
        counter = _Counter(owner)
        live = [open_.enter_context(closing(session)) for session in sessions(url)]
        before: dict[str, Seen] = {}
        for session in live:
            for time in range(WARM - 1):
                for use in session.uses:
                    seen = session.send(use, time)
                    assert not seen.error, f"{use.name}: {seen.error}"
            counter.since(session)
            before |= {use.name: counter.send(session, use, WARM - 1) for use in session.uses}
        apply(server.url(database, OWNER), ddl)
        counter.since(live[0])  # what the DDL itself has written
        for session in live:
            again = {use.name: counter.send(session, use, WARM) for use in session.uses}
            new = _new(url, session.uses, counter)
            found |= {use.name: Truth(before[use.name], again[use.name], new[use.name]) for use in session.uses}
    return found


def _new(url: str, uses: Sequence[Use], counter: _Counter) -> dict[str, Seen]:
    """The same in a new session, which may not even open."""
    try:
        session = Session(url, uses)
    except psycopg.Error as error:
        return {use.name: _refused(error) for use in uses}
    try:
        return {use.name: counter.send(session, use, WARM + 1) for use in uses}
    finally:
        session.close()
