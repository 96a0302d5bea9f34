"""What the hooks see of a driver is what the server's own log says it was sent: text, values, failures, order."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

from parallelchange.local.postgres import EmbeddedPostgres, scratch_postgres
from parallelchange.testing.psycopg_hook import watch_psycopg
from parallelchange.testing.recorder import Recorder
from parallelchange.testing.sqlalchemy_hook import _Hook as _SqlalchemyHook
from parallelchange.testing.sqlalchemy_hook import watch_sqlalchemy

LOG = {"log_destination": "jsonlog", "logging_collector": "on", "log_directory": "jsonlog", "log_statement": "all"}
_SENT = re.compile(r"(?:execute (?P<name>[^:]+)|statement): (?P<sql>.*)", re.DOTALL)
_VALUE = re.compile(r"\$\d+ = (?:'((?:[^']|'')*)'|NULL)")

Line = tuple[str, tuple[str | None, ...], bool, str]
"""SQL, values, prepared by name, sqlstate."""


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with scratch_postgres(LOG) as postgres:
        yield postgres


class Watched:
    """A database, watched from both sides."""

    def __init__(self, server: EmbeddedPostgres, name: str) -> None:
        self.server, self.name, self.url = server, name, server.create_database(name)
        self.recorder = Recorder()

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, **{"application_name": "app", **options})

    def logged(self) -> list[Line]:
        """What the server was sent by the app, in order."""
        found: list[list[Any]] = []
        for path in sorted((self.server.data_dir / "jsonlog").glob("*.json")):
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                if entry.get("dbname") != self.name or entry.get("application_name") != "app":
                    continue
                if entry["error_severity"] == "ERROR":
                    if not found or found[-1][0] != entry["statement"]:  # not parsed, and so never executed
                        found.append([entry["statement"], (), False, ""])
                    found[-1][3] = entry["state_code"]
                elif match := _SENT.fullmatch(entry["message"]):
                    values = entry.get("detail", "").partition(": ")[2]
                    given = tuple(None if m[1] is None else m[1].replace("''", "'") for m in _VALUE.finditer(values))
                    found.append([match["sql"], given, match["name"] not in (None, "<unnamed>"), ""])
        return [tuple(line) for line in found]  # type: ignore[misc]

    def wait(self) -> None:
        """The server writes its log in a process of its own."""
        deadline = time.monotonic() + 5
        while len(self.logged()) < len(self.recorded()) and time.monotonic() < deadline:
            time.sleep(0.01)

    def recorded(self) -> list[Line]:
        """The same, as the hooks saw it."""
        assert self.recorder.errors == []
        own = [item for item in self.recorder.sent if item.application == "app"]
        return [(item.sql, item.values or (), item.prepared, item.sqlstate) for item in own]


@pytest.fixture
def watched(server: EmbeddedPostgres, request: pytest.FixtureRequest) -> Iterator[Watched]:
    made = Watched(server, re.sub(r"\W", "_", request.node.name)[:60])
    with psycopg.connect(made.url, autocommit=True) as session:
        session.execute(
            "CREATE TABLE t (id int PRIMARY KEY, a text, b bytea, c jsonb, d timestamptz DEFAULT '2026-01-01Z');"
            "CREATE TABLE child (id int REFERENCES t DEFERRABLE INITIALLY DEFERRED)"
        )
    restore = [watch_psycopg(made.recorder), watch_sqlalchemy(made.recorder)]
    try:
        yield made
    finally:
        for undo in restore:
            undo()
        server.drop_database(made.name)


INSERT = "INSERT INTO t (id, a, b, c) VALUES (%s, %s, %s, %s)"


def _plain(watched: Watched) -> None:
    with watched.connect() as session, session.cursor() as cursor:
        cursor.execute(INSERT, (1, "it's", b"\x00\xff", Jsonb({"a": 1})))
        cursor.execute("INSERT INTO t VALUES (%(id)s, %(a)s)", {"id": 2, "a": None})
        session.execute("SELECT a FROM t WHERE id = 1 -- a comment")
        session.execute("SELECT %b::int, %b::text, %t", (3, "z", 4))
        session.execute(sql.SQL("SELECT {} FROM t").format(sql.Identifier("a")))


def _no_parameters(watched: Watched) -> None:
    with watched.connect(autocommit=True) as session:
        session.execute("SELECT 1; SELECT 'two'")
        session.execute("")
        session.execute("LISTEN news")
        session.execute("SET statement_timeout = '5s'")


def _prepared(watched: Watched) -> None:
    with watched.connect(autocommit=True) as session:
        for number in range(8):
            session.execute("SELECT a FROM t WHERE id = %s", (number,))
        session.execute("SELECT b FROM t WHERE id = %s", (1,), prepare=True)
        session.prepare_threshold = None
        for number in range(8):
            session.execute("SELECT c FROM t WHERE id = %s", (number,))


def _blocks(watched: Watched) -> None:
    with watched.connect(autocommit=True) as session:
        with session.transaction():
            session.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(psycopg.errors.UniqueViolation), session.transaction():
                session.execute("INSERT INTO t VALUES (1)")
            with session.transaction(force_rollback=True):
                session.execute("DELETE FROM t")
        with pytest.raises(psycopg.errors.ForeignKeyViolation), session.transaction():
            session.execute("INSERT INTO child VALUES (99)")


def _refused(watched: Watched) -> None:
    with watched.connect(autocommit=True) as session:
        for wrong in ("SELECT nothing FROM t", "INSERT INTO t VALUES (NULL)"):
            with pytest.raises(psycopg.Error):
                session.execute(wrong)
        session.execute("INSERT INTO t (id) VALUES (%s)", (0,))
        for prepare in (False, True):
            with pytest.raises(psycopg.Error):
                session.execute("SELECT 1/(id - %s) FROM t", (0,), prepare=prepare)
        session.execute("SELECT 1")


def _rolled_back(watched: Watched) -> None:
    session = watched.connect()
    session.execute("INSERT INTO t VALUES (1)")
    session.rollback()
    session.execute("INSERT INTO t VALUES (1)")
    session.commit()
    session.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    session.execute("SELECT 1")
    session.close()


def _many(watched: Watched) -> None:
    with watched.connect() as session, session.cursor() as cursor:
        cursor.executemany("INSERT INTO t (id, a) VALUES (%s, %s)", [(number, str(number)) for number in range(4)])
        cursor.executemany("UPDATE t SET a = %s WHERE id = %s RETURNING a", [("x", 1), ("y", 2)], returning=True)


def _pipeline(watched: Watched) -> None:
    with watched.connect(autocommit=True) as session, session.pipeline():
        for number in range(3):
            session.execute("INSERT INTO t (id) VALUES (%s)", (number,))
        session.execute("SELECT count(*) FROM t")


def _pipeline_refused(watched: Watched) -> None:
    with watched.connect(autocommit=True) as session:
        with pytest.raises(psycopg.errors.UniqueViolation), session.pipeline():  # noqa: PT012 - all of it is sent
            session.execute("INSERT INTO t (id) VALUES (%s)", (1,))
            session.execute("INSERT INTO t (id) VALUES (%s)", (1,))
            session.execute("SELECT 'never run'")
        session.execute("SELECT 'run'")


def _copy(watched: Watched) -> None:
    with watched.connect() as session, session.cursor() as cursor:
        with cursor.copy("COPY t (id, a) FROM STDIN") as copy:
            copy.write_row((1, "a"))
        with cursor.copy("COPY (SELECT id FROM t WHERE id > %s) TO STDOUT", (0,)) as copy:
            assert list(copy.rows()) == [("1",)]
        with pytest.raises(psycopg.errors.UniqueViolation), cursor.copy("COPY t (id) FROM STDIN") as copy:
            copy.write_row((1,))
        session.rollback()


def _stream(watched: Watched) -> None:
    with watched.connect() as session, session.cursor() as cursor:
        assert list(cursor.stream("SELECT generate_series(1, %s)", (3,))) == [(1,), (2,), (3,)]
        with pytest.raises(psycopg.errors.DivisionByZero):
            list(cursor.stream("SELECT 1/(g - %s) FROM generate_series(0, 1) g", (0,)))


def _cursors(watched: Watched) -> None:
    with watched.connect() as session:
        with psycopg.ClientCursor(session) as client:
            client.execute("INSERT INTO t (id, a) VALUES (%s, %s)", (1, "o'clock"))
        with psycopg.RawCursor(session) as raw:
            raw.execute("SELECT a FROM t WHERE id = $1", (1,))
        with session.cursor("named") as named:
            named.execute("SELECT id FROM t WHERE id >= %s", (0,))
            assert named.fetchall() == [(1,)]
        with pytest.raises(psycopg.Error), session.cursor("other") as named:
            named.execute("SELECT nothing FROM t")


def _async(watched: Watched) -> None:
    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(watched.url, application_name="app") as session:
            async with session.transaction():
                await session.execute("INSERT INTO t (id, a) VALUES (%s, %s)", (1, "a"))
            async with session.cursor() as cursor:
                await cursor.executemany("INSERT INTO t (id) VALUES (%s)", [(2,), (3,)])
                async with cursor.copy("COPY t (id) FROM STDIN") as copy:
                    await copy.write_row((4,))
                assert [row async for row in cursor.stream("SELECT id FROM t ORDER BY id LIMIT %s", (1,))] == [(1,)]
            with pytest.raises(psycopg.errors.UndefinedColumn):
                await session.execute("SELECT nothing FROM t")

    asyncio.run(run())


def _sqlalchemy(watched: Watched) -> None:
    engine = create_engine(
        watched.url.replace("postgresql:", "postgresql+psycopg:", 1), connect_args={"application_name": "app"}
    )
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO t (id, a) VALUES (:id, :a)"), [{"id": 1, "a": "x"}, {"id": 2, "a": "y"}])
        with connection.begin_nested():
            connection.execute(text("SELECT a FROM t WHERE id = :id"), {"id": 1})
    engine.dispose()


PATHS = {
    run.__name__.strip("_"): run
    for run in (
        _plain, _no_parameters, _prepared, _blocks, _refused, _rolled_back, _many, _pipeline, _pipeline_refused, _copy,
        _stream, _cursors, _async, _sqlalchemy,
    )
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_the_hook_sees_what_the_server_was_sent(watched: Watched, path: str) -> None:
    PATHS[path](watched)
    watched.wait()
    assert watched.recorded() == watched.logged()
    assert watched.recorded()


def test_psycopg2_is_seen_through_its_engines(watched: Watched) -> None:
    pytest.importorskip("psycopg2")
    engine = create_engine(
        watched.url.replace("postgresql:", "postgresql+psycopg2:", 1), connect_args={"application_name": "app"}
    )
    rows = [{"id": number, "a": f"it's {number} %"} for number in range(3)]
    with engine.begin() as connection:
        connection.execute(text("SELECT 'begin'"))
        connection.execute(text("INSERT INTO t (id, a) VALUES (:id, :a)"), rows)
        connection.execute(text("UPDATE t SET a = :a WHERE id = :id"), rows[:2])
        with pytest.raises(IntegrityError), connection.begin_nested():
            connection.execute(text("INSERT INTO t (id) VALUES (1)"))
        connection.execute(text("SELECT a FROM t WHERE id = :id"), {"id": 1})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SELECT 1"))
    with engine.connect() as connection:
        connection.execute(text("DELETE FROM t WHERE id = 2"))
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text("INSERT INTO child VALUES (99)"))
    engine.dispose()
    watched.wait()
    # Before the first statement SQLAlchemy asks the server who it is, which only the server sees.
    logged = watched.logged()
    first = next(number for number, line in enumerate(logged) if line[0] == "SELECT 'begin'")
    # An engine does not tell in which words its driver begins a transaction.
    told = [("BEGIN", *line[1:]) if line[0].startswith("BEGIN") else line for line in logged[first - 1 :]]
    assert watched.recorded() == told


def test_a_driver_that_cannot_be_watched_fails_the_recording(watched: Watched) -> None:
    hook = _SqlalchemyHook(watched.recorder)
    connection = SimpleNamespace(dialect=SimpleNamespace(name="postgresql", driver="asyncpg"))
    hook.command(cast("Any", connection), "BEGIN")
    assert "asyncpg" in watched.recorder.errors[0]


def test_everything_is_as_before_when_it_ends(watched: Watched) -> None:
    from psycopg._connection_base import BaseConnection
    from psycopg._cursor_base import BaseCursor

    places = (BaseCursor._execute_send, BaseCursor._maybe_prepare_gen, BaseConnection._exec_command)
    inner = Recorder()
    restore = watch_psycopg(inner)
    restore()
    assert (BaseCursor._execute_send, BaseCursor._maybe_prepare_gen, BaseConnection._exec_command) == places
    with watched.connect() as session:
        session.execute("SELECT 1")
    assert inner.sent == []


def test_sessions_and_threads_are_told_apart(watched: Watched) -> None:
    def run(number: int) -> None:
        with watched.connect() as session:
            for _ in range(20):
                session.execute("SELECT %s::int", (number,))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen: dict[str, set[Any]] = {}
    for item in watched.recorder.sent:
        if item.values:
            seen.setdefault(item.session, set()).add(item.values)
    assert len(seen) == 4
    assert sorted(values.pop() for values in seen.values()) == [(str(number),) for number in range(4)]


def test_an_error_of_ours_is_not_the_apps(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("of ours")

    monkeypatch.setattr(watched.recorder, "add", broken)
    with watched.connect() as session:
        assert session.execute("SELECT %s::int", (7,)).fetchone() == (7,)
    assert watched.recorder.errors == ["RuntimeError: of ours"]


def test_the_toolkits_own_sessions_are_not_recorded(watched: Watched) -> None:
    with watched.connect(application_name="parallelchange") as session:
        session.execute("SELECT 1")
    assert watched.recorder.sent == []
