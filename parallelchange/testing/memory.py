"""Describing recorded statements on the database the app under test uses, without leaving anything there."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from parallelchange.adapters.postgres.connection import connect
from parallelchange.adapters.postgres.describing import SessionDescribe
from parallelchange.errors import Busy
from parallelchange.recording import Refused

__all__ = ["Memory"]

_LOCK_TIMEOUT = 2
"""Seconds."""

Shape = tuple[tuple[str, ...], tuple[str, ...]]
"""Columns as `name type`, and the types of the parameters."""
Asked = tuple[str, str, tuple[str, ...]]
"""What was run before in the same transaction, the statement, and the types of its parameters."""


class Memory:
    """Remembers what was described while the database was there: an app's fixtures may drop it at the end.

    What the server says of a statement depends on what was run before it in the same transaction, so that is
    remembered with it.

    Args:
        url: The database to ask what is not remembered; None where there is none.
    """

    def __init__(self, url: str | None = None) -> None:
        self.known: dict[Asked, Shape | str] = {}
        self.url = url
        self._live: SessionDescribe | None = None
        self._state = ""
        self._unsent: list[str] = []

    def __call__(self, sql: str, types: Sequence[str]) -> Shape:
        """As remembered, else as the server says now."""
        return self._ask((self._state, sql, tuple(types)), lambda live: live(sql, types))

    def run(self, sql: str) -> None:
        """Run a statement, unless what it did is remembered."""

        def do(live: SessionDescribe) -> Shape:
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
        """End the session, if there is one, and whatever was under way in it."""
        self._state = ""
        self._unsent.clear()
        if self._live is not None:
            self._live.connection.close()
            self._live = None

    def _ask(self, asked: Asked, do: Callable[[SessionDescribe], Shape]) -> Shape:
        if asked not in self.known:
            live = self._session()
            begun = time.monotonic()
            try:
                self.known[asked] = do(live)
            except Refused as refused:
                # By the clock, for what the server says of it is in the server's language.
                if time.monotonic() - begun >= _LOCK_TIMEOUT:
                    raise Busy(f"the app's own sessions hold locks on what it uses: {refused}") from None
                self.known[asked] = str(refused)
        found = self.known[asked]
        if isinstance(found, str):
            raise Refused(found)
        return found

    def _session(self) -> SessionDescribe:
        """A session that has run all that was run from memory."""
        if self._live is None:
            if self.url is None:
                raise LookupError("a statement was not described while its database was there")
            # The app's fixtures may hold locks for as long as we wait.
            self._live = SessionDescribe(connect(self.url, lock_timeout=f"{_LOCK_TIMEOUT}s", statement_timeout="10s"))
        unsent, self._unsent = self._unsent, []
        for sql in unsent:
            with suppress(Refused):
                self._live.run(sql)
        return self._live
