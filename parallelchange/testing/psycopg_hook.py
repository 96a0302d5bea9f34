"""Watching psycopg 3: what its cursors and connections, sync or async, hand to libpq.

psycopg has no hook of its own for this. Its cursors all send through three methods, its transactions through one; these
are wrapped while a recording runs, and put back at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import PyFormat, Transformer
from psycopg.conninfo import make_conninfo

from parallelchange.errors import UsageError
from parallelchange.testing.recorder import Recorder, Sent, Session

__all__ = ["watch_psycopg"]


def watch_psycopg(recorder: Recorder) -> Callable[[], None]:
    """Record what psycopg sends from now on.

    Returns:
        Puts everything back.

    Raises:
        UsageError: This psycopg sends in another way.
    """
    hook = _Hook(recorder)
    # Cursors and connections, sync and async, have the class in common that defines these.
    wraps: list[tuple[type, str, Callable[[Any], Any]]] = [
        (psycopg.Cursor, "_execute_send", hook.execute_send),
        (psycopg.ClientCursor, "_execute_send", hook.execute_send),
        (psycopg.Cursor, "_send_prepare", hook.send_prepare),
        (psycopg.Cursor, "_send_query_prepared", hook.send_query_prepared),
        (psycopg.Cursor, "_maybe_prepare_gen", hook.failing),
        (psycopg.Cursor, "_start_copy_gen", hook.failing),
        (psycopg.Cursor, "_stream_fetchone_gen", hook.failing),
        (psycopg.ServerCursor, "_declare_gen", hook.failing),
        (psycopg.Connection, "_exec_command", hook.exec_command),
        (psycopg.Pipeline, "_process_results", hook.process_results),
        (psycopg.Copy, "finish", hook.finish_copy),
        (psycopg.AsyncCopy, "finish", hook.finish_async_copy),
    ]
    places = [(_owner(of, name), name, wrap) for of, name, wrap in wraps]
    originals = [(owner, name, owner.__dict__[name]) for owner, name, _ in places]
    for (owner, name, wrap), (_, _, original) in zip(places, originals, strict=True):
        setattr(owner, name, wrap(original))

    def restore() -> None:
        for owner, name, original in originals:
            setattr(owner, name, original)

    return restore


class _Hook:
    """The wrappers; each calls the original, whatever becomes of the recording."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def session(self, connection: Any) -> Session:
        return self.recorder.session(connection, lambda: _url(connection))

    def note(self, connection: Any, command: bytes, query: Any = None, *, prepared: bool = False) -> None:
        with self.recorder.guarded():
            session = self.session(connection)
            status = connection.pgconn.parameter_status(b"application_name") or b""
            encoding = connection.info.encoding
            values = None
            if query is not None and query.formats is not None:  # a ClientCursor has put them into the text
                values = _texts(connection, query)
            # Types are left to the server, as they are where its log is read: psycopg sends a small number as smallint
            # and a large one as bigint, and would make one statement into three.
            sent = self.recorder.add(
                session, status.decode(encoding), command.decode(encoding), values, prepared=prepared
            )
            if sent is not None and connection._pipeline and query is not None:  # noqa: SLF001
                session.waiting.append(sent)

    def failed(self, connection: Any, error: psycopg.Error) -> None:
        with self.recorder.guarded():
            if not connection._pipeline:  # noqa: SLF001 - there, the results come later
                self.recorder.failed(self.session(connection), error.sqlstate)

    def execute_send(self, original: Any) -> Any:
        def _execute_send(cursor: Any, query: Any, **options: Any) -> None:
            original(cursor, query, **options)
            self.note(cursor._conn, query.query, query)  # noqa: SLF001

        return _execute_send

    def send_prepare(self, original: Any) -> Any:
        def _send_prepare(cursor: Any, name: bytes, query: Any) -> None:
            original(cursor, name, query)
            # Whatever was sent before has its answer: a refused PREPARE is not to be taken for its failure.
            with self.recorder.guarded():
                self.session(cursor._conn).last = None  # noqa: SLF001

        return _send_prepare

    def send_query_prepared(self, original: Any) -> Any:
        def _send_query_prepared(cursor: Any, name: bytes, pgq: Any, **options: Any) -> None:
            original(cursor, name, pgq, **options)
            self.note(cursor._conn, pgq.query, pgq, prepared=True)  # noqa: SLF001

        return _send_query_prepared

    def exec_command(self, original: Any) -> Any:
        def _exec_command(connection: Any, command: Any, *rest: Any, **options: Any) -> Generator[Any, Any, Any]:
            with self.recorder.guarded():
                self.note(connection, _bytes(connection, command))
            try:
                return (yield from original(connection, command, *rest, **options))
            except psycopg.Error as error:
                self.failed(connection, error)
                raise

        return _exec_command

    def failing(self, original: Any) -> Any:
        def _generator(cursor: Any, *given: Any, **options: Any) -> Generator[Any, Any, Any]:
            try:
                return (yield from original(cursor, *given, **options))
            except psycopg.Error as error:
                self.failed(cursor._conn, error)  # noqa: SLF001
                raise

        return _generator

    def process_results(self, original: Any) -> Any:
        def _process_results(pipeline: Any, queued: Any, results: Sequence[Any]) -> None:
            with self.recorder.guarded():
                waiting = self.session(pipeline._conn).waiting  # noqa: SLF001
                if queued is not None and waiting:
                    self.settle(waiting.pop(0), results)
            original(pipeline, queued, results)

        return _process_results

    def settle(self, sent: Sent, results: Sequence[Any]) -> None:
        """The results of a statement in a pipeline are there."""
        for result in results:
            if result.status == pq.ExecStatus.PIPELINE_ABORTED:
                self.recorder.drop(sent)
            elif result.status == pq.ExecStatus.FATAL_ERROR:
                sent.sqlstate = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()

    def finish_copy(self, original: Any) -> Any:
        def finish(copy: Any, *given: Any, **options: Any) -> Any:
            try:
                return original(copy, *given, **options)
            except psycopg.Error as error:
                self.failed(copy.connection, error)
                raise

        return finish

    def finish_async_copy(self, original: Any) -> Any:
        async def finish(copy: Any, *given: Any, **options: Any) -> Any:
            try:
                return await original(copy, *given, **options)
            except psycopg.Error as error:
                self.failed(copy.connection, error)
                raise

        return finish


def _owner(of: type, name: str) -> type:
    """The class that a method is defined in."""
    for owner in of.__mro__:
        if name in owner.__dict__:
            return owner
    raise UsageError(
        f"psycopg {psycopg.__version__} cannot be watched: its {of.__name__} has no {name}",
        hint="use `parallelchange record`, which reads the server's log",
    )


def _url(connection: Any) -> str:
    info = connection.info
    parts = {**info.get_parameters(), "password": info.password or None}
    return make_conninfo("", **{name: value for name, value in parts.items() if value is not None})


def _bytes(connection: Any, command: Any) -> bytes:
    if isinstance(command, str):
        return command.encode(connection.info.encoding)
    return bytes(command) if isinstance(command, bytes) else bytes(command.as_bytes(connection))


def _texts(connection: Any, query: Any) -> list[str | None]:
    """Parameters in PostgreSQL's text form; what was sent in binary is read and written again."""
    texts: list[str | None] = []
    transformer = Transformer(connection)
    encoding = connection.info.encoding
    for value, oid, form in zip(query.params, query.types, query.formats, strict=True):
        if value is None:
            texts.append(None)
            continue
        given = bytes(value)
        if form == pq.Format.BINARY:
            read = transformer.get_loader(oid, pq.Format.BINARY).load(given)
            written = transformer.get_dumper(read, PyFormat.TEXT).dump(read)
            given = b"" if written is None else bytes(written)
        texts.append(given.decode(encoding))
    return texts
