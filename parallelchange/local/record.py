"""Recording: run an app's tests on a scratch PostgreSQL and keep every statement they send."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from parallelchange.adapters.postgres.connection import connect
from parallelchange.adapters.postgres.database import PostgresDatabase
from parallelchange.adapters.postgres.ledger import PostgresLedger
from parallelchange.adapters.postgres.revisions import Revisions
from parallelchange.adapters.postgres.statements import Describer
from parallelchange.change import Version
from parallelchange.corpus import Corpus, Recorded, Step, Unit
from parallelchange.errors import Blocked, Unavailable
from parallelchange.local.postgres import EmbeddedPostgres, scratch_postgres
from parallelchange.model import Phase
from parallelchange.plan import Plan

__all__ = ["parse_log", "record"]

_JSONLOG = {
    "log_destination": "jsonlog",
    "logging_collector": "on",
    "log_directory": "jsonlog",
    "log_statement": "all",
}
_MESSAGE = re.compile(r"(?:execute (?P<name>[^:]+)|statement): (?P<sql>.*)", re.DOTALL)
_PARAMETER = re.compile(r"\$\d+ = (?:'((?:[^']|'')*)'|NULL)")
# What a driver or a test sends around the app's own statements, or what cannot be prepared.
_LEFT_OUT = re.compile(
    r"\s*(begin|commit|rollback|savepoint|release|start transaction|set|reset|show|deallocate|discard|select"
    r" pg_catalog\.version|select current_schema|explain|listen|unlisten|notify|copy|prepare|execute|vacuum|analyze)\b",
    re.IGNORECASE,
)
_SETS = 4
_LONGEST = 2000


@dataclass
class _Seen:
    prepared: bool = False
    parameters: list[tuple[str | None, ...]] = field(default_factory=list)


def parse_log(lines: Iterable[str], application_name: str, database: str) -> dict[str, _Seen]:
    """Read a PostgreSQL JSON log.

    Args:
        lines: Its lines.
        application_name: Whose statements are wanted.
        database: Sent to which database.

    Returns:
        Statement text to how it was sent.
    """
    found: dict[str, _Seen] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the last line of a log that is still written
        if entry.get("application_name") != application_name or entry.get("dbname") != database:
            continue
        match = _MESSAGE.fullmatch(entry.get("message", ""))
        if match is None or _LEFT_OUT.match(match["sql"]):
            continue
        seen = found.setdefault(match["sql"].strip().rstrip(";"), _Seen())
        seen.prepared = seen.prepared or match["name"] not in (None, "<unnamed>")
        values = tuple(_parameters(entry.get("detail", "")))
        small = sum(len(value or "") for value in values) <= _LONGEST
        if values not in seen.parameters and len(seen.parameters) < _SETS and small:
            seen.parameters.append(values)
    return found


def _parameters(detail: str) -> Iterator[str | None]:
    _, _, values = detail.partition(": ")
    for match in _PARAMETER.finditer(values):
        yield None if match[1] is None else match[1].replace("''", "'")


def record(
    plan: Plan, version: Version, ini: Path, command: Sequence[str], *, setup: Sequence[str] = (), cwd: Path
) -> Corpus:
    """Run a command on a scratch PostgreSQL with the schema at the version, and keep what it sends.

    Args:
        plan: The plan of the change the version belongs to.
        version: Old: recorded on the schema before the change. New: on the expanded one.
        ini: The repository's `alembic.ini`.
        command: The app's tests; they find the database in DATABASE_URL.
        setup: Run first, to fill the tables.
        cwd: Folder the commands run in.

    Raises:
        Blocked: A command failed, or no statement was seen.
        Unavailable: There is no embedded PostgreSQL.
    """
    if not version.application_name:
        raise Unavailable(
            f"{version.name} declares no application_name, by which its statements are told",
            hint="add it to the change file",
        )
    with scratch_postgres(_JSONLOG) as server:
        url = server.create_database("recording")
        Revisions(url, plan, ini).to_base()
        if setup:
            _run(setup, url, cwd)
        if version.name == plan.change.new.name:
            _expand(plan, url, ini)
        _run(command, url, cwd)
        seen = parse_log(_log_lines(server), version.application_name, "recording")
        statements = tuple(_describe(url, seen, " ".join(command)))
        sent = ((s, values) for s in statements for values in seen[s.sql].parameters if len(values) == len(s.types))
        corpus = Corpus(version.name, statements, tuple(Unit(1, (Step(s.id, values),)) for s, values in sent))
    if not corpus.statements:
        raise Blocked(
            f"no statement with application_name {version.application_name} was seen",
            hint="does the command use DATABASE_URL, and the app its own application_name?",
        )
    return corpus


def _expand(plan: Plan, url: str, ini: Path) -> None:
    ledger, database = PostgresLedger(url, plan.change.name), PostgresDatabase(url, plan, ini)
    try:
        ledger.open()
        database.apply(Phase.EXPAND)
        database.backfill(lambda _what, _done, _total: None)
    finally:
        ledger.close()
        database.close()


def _run(command: Sequence[str], url: str, cwd: Path) -> None:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "DATABASE_URL": url}, check=False, capture_output=True, text=True
    )
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise Blocked(f"`{' '.join(command)}` exited {done.returncode}, so nothing was recorded:\n{tail}")


def _log_lines(server: EmbeddedPostgres) -> Iterator[str]:
    for path in sorted((server.data_dir / "jsonlog").glob("*.json")):
        yield from path.read_text(encoding="utf-8", errors="replace").splitlines()


def _describe(url: str, seen: dict[str, _Seen], where: str) -> Iterator[Recorded]:
    with connect(url) as connection:
        describer = Describer(connection)
        for sql in sorted(seen):
            columns, types = describer.describe(sql, ())
            yield Recorded(sql, types, columns, seen[sql].prepared, where)
