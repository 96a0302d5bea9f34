"""Watching SQLAlchemy's engines by their events, for drivers that cannot be watched themselves."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext

from parallelchange.testing.recorder import Recorder, Session

__all__ = ["watch_sqlalchemy"]

_WATCHED_ITSELF = {"psycopg", "psycopg_async"}
"""psycopg 3 is watched below SQLAlchemy, and would be recorded twice."""


def watch_sqlalchemy(recorder: Recorder) -> Callable[[], None]:
    """Record what engines of psycopg2 send from now on; an engine of another driver fails the recording.

    Returns:
        Puts everything back.
    """
    hook = _Hook(recorder)
    listeners: dict[str, Callable[..., None]] = {
        "after_cursor_execute": hook.after_cursor_execute,
        "handle_error": hook.handle_error,
        "begin": lambda connection: hook.command(connection, "BEGIN"),
        "commit": lambda connection: hook.command(connection, "COMMIT"),
        "rollback": lambda connection: hook.command(connection, "ROLLBACK"),
    }
    for name, listener in listeners.items():
        event.listen(Engine, name, listener)

    def restore() -> None:
        for name, listener in listeners.items():
            event.remove(Engine, name, listener)

    return restore


class _Hook:
    """The listeners. Savepoints come as statements of their own through the cursor."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def watches(self, connection: Connection) -> bool:
        dialect = connection.dialect
        if dialect.name != "postgresql" or dialect.driver in _WATCHED_ITSELF:
            return False
        if dialect.driver != "psycopg2":
            self.recorder.fail(
                f"what {dialect.driver} sends cannot be recorded from the driver's side:"
                " use `parallelchange record`, which reads the server's log"
            )
            return False
        return True

    def note(self, connection: Connection, sql: str, sqlstate: str | None = None) -> None:
        driver: Any = connection.connection.dbapi_connection
        session = self.session(driver)
        application = driver.info.parameter_status("application_name") or ""
        self.recorder.add(session, application, sql)
        self.recorder.failed(session, sqlstate)

    def session(self, driver: Any) -> Session:
        def url() -> str:
            return make_conninfo("", **{**driver.info.dsn_parameters, "password": driver.info.password or None})

        return self.recorder.session(driver, url)

    def command(self, connection: Connection, sql: str) -> None:
        with self.recorder.guarded():
            if self.watches(connection) and not _autocommit(connection):
                self.note(connection, sql)

    def after_cursor_execute(
        self, connection: Connection, cursor: Any, statement: str, given: Any, _context: Any, many: bool
    ) -> None:
        with self.recorder.guarded():
            if not self.watches(connection):
                return
            # Of many, psycopg2 knows only the last.
            sent = [cursor.mogrify(statement, values) for values in given] if many else [cursor.query]
            for query in sent:
                self.note(connection, query.decode(_encoding(connection)))

    def handle_error(self, context: ExceptionContext) -> None:
        with self.recorder.guarded():
            connection, error = context.connection, context.original_exception
            if connection is None or not self.watches(connection):
                return
            sqlstate = getattr(error, "pgcode", None)
            query = getattr(getattr(error, "cursor", None), "query", None) if context.statement else None
            if query:
                self.note(connection, query.decode(_encoding(connection)), sqlstate)
            elif sqlstate:
                driver: Any = connection.connection.dbapi_connection
                self.recorder.failed(self.session(driver), sqlstate)


def _autocommit(connection: Connection) -> bool:
    driver: Any = connection.connection.dbapi_connection
    return bool(driver.autocommit)


def _encoding(connection: Connection) -> str:
    driver: Any = connection.connection.dbapi_connection
    return str(import_module("psycopg2.extensions").encodings[driver.encoding])
