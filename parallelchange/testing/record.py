"""Recording what an app's own test suite sends, from the driver's side: for `--parallelchange-record`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

import psycopg
import pytest

from parallelchange.change import Version
from parallelchange.corpus import write_corpus
from parallelchange.errors import ParallelChangeError
from parallelchange.recording import Event, Recording, build
from parallelchange.testing.memory import Memory
from parallelchange.testing.psycopg_hook import watch_psycopg
from parallelchange.testing.recorder import Recorder, Sent, chosen
from parallelchange.testing.sqlalchemy_hook import watch_sqlalchemy

__all__ = ["RecordingPlugin"]


class RecordingPlugin:
    """The hooks of a run that records; registered only for such a run.

    Args:
        version: The version that is recorded.
        target: The corpus to write.
        worker: Name of the xdist worker this is; empty where there are none.
        gathers: Whether the tests run in workers, whose recordings are put together here.
    """

    def __init__(self, version: Version, target: Path, *, worker: str, gathers: bool) -> None:
        self.version, self.target, self.worker, self.gathers = version, target, worker, gathers
        self.recorder = Recorder(f"{worker}." if worker else "")
        self.memory = Memory()
        self.told: list[str] = []
        self._texts: set[str] = set()
        self._looked_at = 0
        self._parts: dict[str, Any] = {}
        self._restore: list[Callable[[], None]] = []

    def start(self) -> None:
        """Watch the drivers."""
        if not self.gathers:
            self._restore = [watch_psycopg(self.recorder), watch_sqlalchemy(self.recorder)]

    def stop(self) -> None:
        """Put the drivers back; calling it twice does no harm."""
        while self._restore:
            self._restore.pop()()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """What is sent from now on is this test's."""
        self.recorder.where = item.nodeid
        try:
            return (yield)
        finally:
            self.recorder.where = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, nextitem: pytest.Item | None) -> None:
        """Describe what this test was the first to send before its fixtures are gone, and the database with them."""
        since, self._looked_at = self.recorder.sent[self._looked_at :], len(self.recorder.sent)
        new = {item.sql for item in since} - self._texts
        self._texts |= new
        if new or nextitem is None:
            # Where the database does not answer now, the end will tell if that is still so.
            with self.recorder.guarded(), suppress(ParallelChangeError, psycopg.Error):
                self._build(self._chosen(since if nextitem else self.recorder.sent)[0])
            self.memory.close()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        """A worker of xdist has ended."""
        name = node.gateway.id
        part = getattr(node, "workeroutput", {}).get("parallelchange")
        if part is None or error:
            self.recorder.fail(f"the worker {name} ended without its recording")
        else:
            self._parts[name] = part

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the corpus, or tell why not."""
        self.stop()
        if self.worker:
            with self.recorder.guarded():
                self._build(self._chosen(self.recorder.sent)[0])
            self.memory.close()
            session.config.workeroutput["parallelchange"] = self._part()  # type: ignore[attr-defined]
            return
        self._gather()
        why = self._unfit(exitstatus)
        if not why:
            with self.recorder.guarded():
                self._write()
            self.memory.close()
            why = "; ".join(self.recorder.errors)
        if why:
            self.told.append(f"nothing was recorded of {self.version.name}: {why}")
            if exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Tell what became of it."""
        if self.told:
            terminalreporter.section("parallelchange")
            for line in self.told:
                terminalreporter.write_line(line)

    def _unfit(self, exitstatus: int) -> str:
        """Why there is nothing to write."""
        if exitstatus != pytest.ExitCode.OK:
            return "the tests did not pass"
        if self.recorder.errors:
            return "; ".join(self.recorder.errors)
        return "" if self.recorder.sent else "no statement was seen, of psycopg 3 or of an SQLAlchemy engine"

    def _chosen(self, sent: Sequence[Sent]) -> tuple[list[Sent], str]:
        return chosen(sent, self.version.application_name)

    def _build(self, sent: Sequence[Sent]) -> Recording:
        if sent and sent[-1].session in self.recorder.urls:
            self.memory.url = self.recorder.urls[sent[-1].session]
        events = [
            Event(item.session, item.sql, item.values, (), item.prepared, item.sqlstate, item.where) for item in sent
        ]
        return build(self.version.name, events, self.memory)

    def _write(self) -> None:
        sent, told = self._chosen(self.recorder.sent)
        recording = self._build(sent)
        corpus = recording.corpus
        if not corpus.statements:
            self.recorder.fail("no statement of the app itself was seen")
            return
        write_corpus(self.target, corpus)
        self.told += [told] if told else []
        self.told += [f"left out: {count} {what}" for what, count in recording.left_out.items()]
        self.told += [f"redacted: {count} by {rule}" for rule, count in recording.redacted.items()]
        self.told.append(
            f"recorded {len(corpus.statements)} statements of {self.version.name},"
            f" {len(corpus.units)} units of work: {self.target}"
        )

    def _part(self) -> dict[str, Any]:
        """What a worker has seen, in plain values."""
        return {
            "sent": [astuple(item) for item in self.recorder.sent],
            "known": list(self.memory.known.items()),
            "errors": self.recorder.errors,
        }

    def _gather(self) -> None:
        """Put the workers' recordings together."""
        # A statement's first sending is described: in this order it is one that its worker has described.
        for name in sorted(self._parts):
            part = self._parts[name]
            for values in part["sent"]:
                self.recorder.sent.append(Sent(*values))
            for asked, shape in part["known"]:
                self.memory.known.setdefault(asked, shape)
            for why in part["errors"]:
                self.recorder.fail(why)
