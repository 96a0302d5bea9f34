"""The port of a recording, on a session of its own: describes statements on the schema as it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg

from parallelchange.adapters.postgres.connection import Connection, connect
from parallelchange.adapters.postgres.shapes import Describer
from parallelchange.recording import Refused
from parallelchange.sqltext import opening

__all__ = ["SessionDescribe", "describing"]

_UNTOLD = re.compile(r"could not determine data type of parameter \$(\d+)")
_LOCK_TIMEOUT = "2s"
_HARMLESS = frozenset({"begin", "rollback", "savepoint", "release", "set", "reset"})


class SessionDescribe:
    """Describes statements on one session.

    Args:
        connection: An autocommit session.
        defines: Whether tables and the like may be made in transactions that are rolled back; else only settings are.
    """

    def __init__(self, connection: Connection, *, defines: bool = True) -> None:
        self.connection = connection
        self._defines = defines
        self._describer = Describer(connection)

    def __call__(self, sql: str, types: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Describe a statement; a parameter whose type nothing tells is text, as most drivers send it.

        Raises:
            Refused: The server does not take it.
        """
        asked = list(types)
        while True:
            try:
                return self._describe(sql, asked)
            except Refused as refused:
                untold = _UNTOLD.search(str(refused))
                number = int(untold[1]) if untold else 0
                if not number or asked[number - 1 : number] == ["text"]:
                    raise
                asked += ["unknown"] * (number - len(asked))
                asked[number - 1] = "text"

    def _describe(self, sql: str, types: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        inside = self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE
        if inside:
            self.run("SAVEPOINT describing")
        try:
            return self._describer.describe(sql, types)
        except psycopg.Error as error:
            if self.connection.closed:
                raise
            if inside:
                self.run("ROLLBACK TO describing")
            raise Refused(str(error).splitlines()[0]) from error
        finally:
            if inside and not self.connection.closed:
                self.run("RELEASE describing")

    def run(self, sql: str) -> None:
        """Run a statement as one simple string.

        Raises:
            Refused: It failed.
        """
        if not self._defines and not _HARMLESS.intersection(opening(sql, 1)):
            raise Refused("nothing is made on this database")
        result = self.connection.pgconn.exec_(sql.encode())
        if result.status in (psycopg.pq.ExecStatus.COPY_IN, psycopg.pq.ExecStatus.COPY_OUT):
            self.connection.close()
            raise psycopg.OperationalError("a COPY was to be run where nothing copies")
        if result.status not in (
            psycopg.pq.ExecStatus.COMMAND_OK, psycopg.pq.ExecStatus.TUPLES_OK, psycopg.pq.ExecStatus.EMPTY_QUERY,
        ):  # fmt: skip
            raise Refused(result.error_message.decode(errors="replace").strip().splitlines()[0])


@contextmanager
def describing(url: str, *, defines: bool = True) -> Iterator[SessionDescribe]:
    """Open a session that describes.

    Args:
        url: The database the statements were recorded on, as they left it.
        defines: As in `SessionDescribe`; False on a database that others use.

    Raises:
        Unavailable: The server does not answer.
    """
    settings = {} if defines else {"default_transaction_read_only": "on"}
    with connect(url, lock_timeout=_LOCK_TIMEOUT, **settings) as connection:
        yield SessionDescribe(connection, defines=defines)
