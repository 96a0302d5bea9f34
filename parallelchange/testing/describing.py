"""Describing recorded statements on the database the app under test uses, without leaving anything there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import psycopg

from parallelchange.adapters.postgres.connection import Connection, connect
from parallelchange.adapters.postgres.statements import Describer
from parallelchange.recording import Refused

__all__ = ["Memory", "ScratchDescriber"]

Shape = tuple[tuple[str, ...], tuple[str, ...]]
"""Columns as `name type`, and the types of the parameters."""
Asked = tuple[str, str, tuple[str, ...]]
"""What was run before in the same transaction, the statement, and the types of its parameters."""

_LOCKED = (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled)


class ScratchDescriber:
    """Describes on a session of its own; `describing.Describe`.

    Args:
        url: The database.

    Raises:
        Unavailable: It does not answer.
    """

    def __init__(self, url: str) -> None:
        # The app's fixtures may hold locks for as long as we wait.
        self.connection: Connection = connect(url, lock_timeout="2s", statement_timeout="10s")
        self._describer = Describer(self.connection)

    def __call__(self, sql: str, types: Sequence[str]) -> Shape:
        """Its columns and the types of its parameters."""
        with self._refusing():
            return self._describer.describe(sql, types)

    def run(self, sql: str) -> None:
        """Run a statement; the caller has begun a transaction, and rolls it back."""
        with self._refusing():
            self.connection.execute(sql.encode())

    def close(self) -> None:
        """End the session, and with it whatever it has not committed."""
        self.connection.close()

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled):
            raise  # that tells of this moment, not of the statement
        except psycopg.Error as error:
            if self.connection.closed:
                raise
            raise Refused(str(error).splitlines()[0]) from None


class Memory:
    """Remembers what was described while the database was there: an app's fixtures may drop it at the end.

    What the server says of a statement depends on what was run before it in the same transaction, so that is
    remembered with it.

    Args:
        open_: Opens a session where something is asked that is not remembered; None where there is no database.
    """

    def __init__(self, open_: Callable[[], ScratchDescriber] | None = None) -> None:
        self.known: dict[Asked, Shape | str] = {}
        self.open = open_
        self._live: ScratchDescriber | None = None
        self._state = ""
        self._unsent: list[str] = []

    def __call__(self, sql: str, types: Sequence[str]) -> Shape:
        """As remembered, else as the server says now."""
        return self._ask((self._state, sql, tuple(types)), lambda live: live(sql, types))

    def run(self, sql: str) -> None:
        """Run a statement, unless what it did is remembered."""

        def do(live: ScratchDescriber) -> Shape:
            live.run(sql)
            return (), ()

        asked = (self._state, sql, ("run",))
        # A digest, for a replay of thousands of statements would else be remembered once for each of them.
        digest = hashlib.sha256(f"{self._state}\0{sql}".encode()).hexdigest()
        self._state = {"BEGIN": "BEGIN", "ROLLBACK": ""}.get(sql, digest)
        if sql == "ROLLBACK" and self._unsent[:1] == ["BEGIN"]:
            self._unsent.clear()  # the server was not asked anything in this transaction
        elif asked in self.known and sql != "ROLLBACK":
            self._unsent.append(sql)
            self._ask(asked, do)
        else:
            self.known.pop(asked, None)
            self._ask(asked, do)

    def close(self) -> None:
        """End the session, if there is one."""
        if self._live is not None:
            self._live.close()
            self._live = None

    def _ask(self, asked: Asked, do: Callable[[ScratchDescriber], Shape]) -> Shape:
        if asked not in self.known:
            live = self._session()
            try:
                self.known[asked] = do(live)
            except Refused as refused:
                self.known[asked] = str(refused)
        found = self.known[asked]
        if isinstance(found, str):
            raise Refused(found)
        return found

    def _session(self) -> ScratchDescriber:
        """A session that has run all that was run from memory."""
        if self._live is None:
            if self.open is None:
                raise LookupError("a statement was not described while its database was there")
            self._live = self.open()
        unsent, self._unsent = self._unsent, []
        for sql in unsent:
            with suppress(Refused):
                self._live.run(sql)
        return self._live
