"""PostgreSQL's own log, as JSON or CSV, read as what sessions sent."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from parallelchange.errors import InvalidFile
from parallelchange.recording import Event

__all__ = ["LogEntry", "Logged", "csv_entries", "json_entries", "read_file", "read_log"]

LogEntry = Mapping[str, Any]
"""One line of the log, its fields named as jsonlog names them."""

_SENT = re.compile(
    r"(?P<done>duration: [\d.]+ ms  )?(?:statement|execute (?P<fetch>fetch from )?(?P<name>.*?)): (?P<sql>.*)",
    re.DOTALL,
)
_DURATION = re.compile(r"duration: [\d.]+ ms")
_PARAMETERS = re.compile(r"parameters: ", re.IGNORECASE)
_PARAMETER = re.compile(r"\$\d+ = (?:'((?:[^']|'')*)'|NULL)")
_PREPARED = re.compile(r"prepare: (.*)", re.DOTALL | re.IGNORECASE)
_CUT = "..."  # what log_parameter_max_length leaves at the end of a value
_BEFORE_EXECUTION = frozenset({"PARSE", "BIND"})
_CSV = (
    "timestamp", "user", "dbname", "pid", "remote_host", "session_id", "line_num", "ps", "session_start", "vxid",
    "txid", "error_severity", "state_code", "message", "detail", "hint", "internal_query", "internal_position",
    "context", "statement", "cursor_position", "location", "application_name",
)  # fmt: skip


@dataclass
class Logged:
    """What a log told.

    Args:
        events: In order.
        databases: Of each session, the one it was in.
        cut: Sendings whose parameters the server had cut, so that they are not known.
    """

    events: list[Event] = field(default_factory=list)
    databases: dict[str, str] = field(default_factory=dict)
    cut: int = 0

    def by_database(self) -> Counter[str]:
        """Sendings to each database; `postgres` is where tools go, and does not count."""
        counted = Counter(self.databases.get(event.session, "") for event in self.events)
        del counted["postgres"]
        return counted


def read_log(entries: Iterable[LogEntry], *, wanted: Callable[[LogEntry], bool], whole: bool) -> Logged:
    """Make events of a log.

    Args:
        entries: Its lines, in order.
        wanted: Which of them count: by session, database or application name.
        whole: Whether parameters are logged whole, as with `log_parameter_max_length = -1`.
    """
    reader = _Reader(whole)
    for entry in entries:
        if wanted(entry):
            reader.take(entry)
    return reader.logged


class _Reader:
    def __init__(self, whole: bool) -> None:
        self.whole = whole
        self.logged = Logged()
        self._last: dict[str, int] = {}  # of a session: its last event, as long as that may still fail
        self._prepared: set[tuple[str, str]] = set()

    def take(self, entry: LogEntry) -> None:
        session, message = str(entry.get("session_id", "")), str(entry.get("message", ""))
        if entry.get("error_severity") in ("ERROR", "FATAL"):
            self._failed(session, entry)
            return
        match = _SENT.fullmatch(message) if entry.get("error_severity") == "LOG" else None
        if match is None:
            if _DURATION.fullmatch(message):
                self._last.pop(session, None)
            return
        if match["fetch"]:
            return  # more rows of what was executed before
        detail = str(entry.get("detail") or "")
        self._add_prepared(session, detail)
        named = match["name"] is not None and not match["name"].startswith("<unnamed>")
        self._add(entry, Event(session, match["sql"], self._values(detail), prepared=named))
        if match["done"]:
            self._last.pop(session, None)

    def _failed(self, session: str, entry: LogEntry) -> None:
        sql, sqlstate = str(entry.get("statement") or ""), str(entry.get("state_code") or "")
        events, last = self.logged.events, self._last.pop(session, None)
        # An error while it was parsed or bound is of a sending that was never logged as executed.
        logged = entry.get("ps") not in _BEFORE_EXECUTION and last is not None and events[last].sql == sql
        if logged and last is not None:
            events[last] = replace(events[last], sqlstate=sqlstate)
        elif sql:
            self._add(entry, Event(session, sql, sqlstate=sqlstate))
            self._last.pop(session, None)

    def _add(self, entry: LogEntry, event: Event) -> None:
        self._last[event.session] = len(self.logged.events)
        self.logged.events.append(event)
        self.logged.databases[event.session] = str(entry.get("dbname", ""))

    def _add_prepared(self, session: str, detail: str) -> None:
        """EXECUTE tells in its detail what was prepared, maybe before the log began."""
        match = _PREPARED.fullmatch(detail)
        if match and (session, match[1]) not in self._prepared:
            self._prepared.add((session, match[1]))
            self.logged.events.append(Event(session, match[1]))

    def _values(self, detail: str) -> tuple[str | None, ...] | None:
        match = _PARAMETERS.match(detail)
        if match is None:
            return None
        found = _PARAMETER.finditer(detail, match.end())
        values = tuple(None if each[1] is None else each[1].replace("''", "'") for each in found)
        if not self.whole and any(value is not None and value.endswith(_CUT) for value in values):
            self.logged.cut += 1
            return None
        return values


def json_entries(lines: Iterable[str]) -> Iterator[LogEntry]:
    """Entries of a jsonlog; what is no JSON, such as the last line of a log still written, is passed over."""
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry


def csv_entries(text: io.TextIOBase) -> Iterator[LogEntry]:
    """Entries of a csvlog."""
    for row in csv.reader(text):
        if len(row) >= len(_CSV):
            yield dict(zip(_CSV, row, strict=False))


def read_file(path: Path) -> Iterator[LogEntry]:
    """Entries of a log file, jsonlog or csvlog by its name.

    Raises:
        InvalidFile: It cannot be read, or holds no line of such a log.
    """
    hint = "a jsonlog or csvlog of PostgreSQL 15 or newer, with log_statement = all or log_min_duration_statement = 0"
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            found = False
            for entry in csv_entries(file) if path.suffix == ".csv" else json_entries(file):
                found = True
                yield entry
    except (OSError, csv.Error) as error:
        raise InvalidFile(f"cannot be read as a log: {error}", path=path, hint=hint) from None
    if not found:
        raise InvalidFile("holds no line of a log", path=path, hint=hint)
