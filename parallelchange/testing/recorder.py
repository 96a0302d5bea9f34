"""What an app sends, as its drivers tell it while its tests run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["Recorder", "Sent", "Session", "chosen"]

OURS = "parallelchange"
"""The application_name of the toolkit's own sessions, which are never recorded."""


@dataclass
class Sent:
    """One statement as it was sent.

    Args:
        session: Number of the session.
        application: What the session called itself then.
        sql: Its text.
        values: Its parameters in PostgreSQL's text form; None where it was sent without any.
        prepared: Whether it was prepared by name.
        where: Test that sent it.
        sqlstate: What it failed with; empty when it worked.
    """

    session: str
    application: str
    sql: str
    values: tuple[str | None, ...] | None
    prepared: bool
    where: str
    sqlstate: str = ""


@dataclass
class Session:
    """One session of the app.

    Args:
        number: Told apart from all others of this test run.
        url: Where it leads, with its password.
        last: The statement it sent last.
        waiting: Statements sent in a pipeline whose results are not there yet.
    """

    number: str
    url: str = field(repr=False)
    last: Sent | None = None
    waiting: list[Sent] = field(default_factory=list)


class Recorder:
    """Collects what sessions send; safe for threads.

    Args:
        process: Told apart from the other processes of the run, if there are any.
    """

    def __init__(self, process: str = "") -> None:
        self.sent: list[Sent] = []
        self.errors: list[str] = []
        self.where = ""
        self.urls: dict[str, str] = {}
        self._process = process
        self._sessions: WeakKeyDictionary[Any, Session] = WeakKeyDictionary()
        self._numbers = count(1)
        self._lock = threading.Lock()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Keep an error of ours from the app under test; the recording has failed."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the app's
            self.fail(f"{type(error).__name__}: {error}")

    def fail(self, why: str) -> None:
        """The recording cannot be trusted."""
        with self._lock:
            if why not in self.errors:
                self.errors.append(why)

    def session(self, connection: Any, url: Callable[[], str]) -> Session:
        """The session behind a driver's connection.

        Args:
            connection: The driver's object.
            url: Asked once for where it leads.
        """
        with self._lock:
            found = self._sessions.get(connection)
        if found is None:
            found = Session(f"{self._process}{next(self._numbers)}", url())
            with self._lock:
                found = self._sessions.setdefault(connection, found)
                self.urls[found.number] = found.url
        return found

    def add(
        self,
        session: Session,
        application: str,
        sql: str,
        values: Sequence[str | None] | None = None,
        *,
        prepared: bool = False,
    ) -> Sent | None:
        """A session has sent a statement; None when the session is one of ours."""
        if application == OURS:
            session.last = None
            return None
        given = None if values is None else tuple(values)
        sent = Sent(session.number, application, sql, given, prepared, self.where)
        with self._lock:
            self.sent.append(sent)
            session.last = sent
        return sent

    def failed(self, session: Session, sqlstate: str | None) -> None:
        """What the session sent last was refused."""
        if session.last is not None and sqlstate and not session.last.sqlstate:
            session.last.sqlstate = sqlstate

    def drop(self, sent: Sent) -> None:
        """It was never run: a statement before it in its pipeline failed."""
        with self._lock:
            # By identity, from the end: the same may well have been sent, and run, before.
            number = next(number for number in range(len(self.sent) - 1, -1, -1) if self.sent[number] is sent)
            del self.sent[number]


def chosen(sent: Sequence[Sent], application: str | None) -> tuple[list[Sent], str]:
    """The statements of a version's own sessions.

    Args:
        sent: Everything.
        application: The version's application_name.

    Returns:
        Those sent under that name if there are any, else all; and what is to be told about it.
    """
    own = [item for item in sent if application and item.application == application]
    if own:
        return own, ""
    if application:
        return list(sent), f"no session called itself {application}: the statements of all sessions were recorded"
    return list(sent), "the version declares no application_name: the statements of all sessions were recorded"
