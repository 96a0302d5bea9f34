"""Recording: run an app's tests on a scratch PostgreSQL and keep every statement they send."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from parallelchange.adapters.postgres.connection import APPLICATION, connect, database_of
from parallelchange.adapters.postgres.describing import describing
from parallelchange.adapters.postgres.log import LogEntry, Logged, json_entries, read_file, read_log
from parallelchange.adapters.postgres.statistics import read_statistics
from parallelchange.errors import Blocked, Unavailable
from parallelchange.local.postgres import EmbeddedPostgres, scratch_postgres
from parallelchange.local.process import LOOPBACK, ReservedPort, tied_to_us
from parallelchange.local.schemas import Schema
from parallelchange.recording import Recording, Redaction, build

__all__ = ["Job", "record", "record_log", "record_statistics"]

_DATABASE = "recording"
_SETTINGS = {
    "log_destination": "jsonlog",
    "logging_collector": "on",
    "log_directory": "jsonlog",  # not `log`: that is the server's own file
    "log_filename": "recording.log",
    "log_rotation_age": "0",
    "log_rotation_size": "0",
    "log_statement": "all",
    "log_parameter_max_length": "-1",
    "log_duration": "off",
    "lc_messages": "C",
}
_MISLEADING = ("PGSERVICE", "PGSERVICEFILE", "PGHOSTADDR", "PGPASSFILE", "PGOPTIONS", "PGSSLMODE")
_OTHERS = (
    "SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    " AND state IS DISTINCT FROM 'idle'"
)
_TAIL = 15
_PATIENCE = 10.0  # seconds the log may lag behind
_LEFT = 3.0  # seconds for what still runs in the server when the command has ended


@dataclass(frozen=True)
class Job:
    """What is to be recorded.

    Args:
        version: The version's name.
        schema: What the scratch database begins with.
        command: The app's tests.
        setup: Run first, to fill the tables; none when empty.
        cwd: Folder both run in.
        application_name: Whose sessions count; None for every session the command opens.
        redaction: What must not reach the file.
        say: Told what happens.
        echo: Given the command's output as it comes.
    """

    version: str
    schema: Schema
    command: Sequence[str] = ()
    setup: Sequence[str] = ()
    cwd: Path = field(default_factory=Path.cwd)
    application_name: str | None = None
    redaction: Redaction = field(default_factory=Redaction)
    say: Callable[[str], None] = lambda _what: None
    echo: Callable[[bytes], None] = lambda _output: None

    def wanted(self, entry: LogEntry) -> bool:
        """Whether a line of a log is of a session that counts."""
        name = entry.get("application_name") or ""
        return name == self.application_name if self.application_name else not name.startswith(APPLICATION)


def record(job: Job) -> Recording:
    """Run a command on a scratch PostgreSQL, and keep what it sends.

    Raises:
        Blocked: A command failed, or no statement was seen.
        Unavailable: There is no embedded PostgreSQL.
        InvalidFile: The schema's file cannot be used.
    """
    port, password = ReservedPort(), secrets.token_hex(16)
    job.say("starting PostgreSQL")
    try:
        with scratch_postgres(_SETTINGS) as server:
            server.listen(port.number, password)
            url = server.create_database(_DATABASE)
            job.schema.lay(url)
            env = _environment(job, port.number, password)
            if job.setup:
                job.say(f"running {shlex.join(job.setup)}")
                _run(job.setup, job, {k: v for k, v in env.items() if k != "PGAPPNAME"})
            job.schema.finish(url)
            begin = _mark(url)
            job.say(f"recording {shlex.join(job.command)}")
            _run(job.command, job, env)
            _wait_for_others(url)
            entries = _between(server, begin, _mark(url))
            logged = read_log(entries, wanted=job.wanted, whole=True)
            job.say(f"describing what it sent: {len(logged.events):,} times")
            return _made(job, logged, server, shlex.join(job.command))
    finally:
        port.release()


def record_log(job: Job, paths: Sequence[Path], url: str | None) -> Recording:
    """Make a corpus of a server's logs.

    Args:
        job: What to record; it has no command.
        paths: The logs, oldest first.
        url: A database with the schema, on which statements are described and nothing is run; None for a scratch one.

    Raises:
        InvalidFile: A log cannot be read.
        Blocked: There is no statement in them.
        Unavailable: There is no server to describe them.
    """
    entries = (entry for path in paths for entry in read_file(path))
    logged = read_log(entries, wanted=job.wanted, whole=False)
    told = _of_one_database(logged, url)
    where = ", ".join(path.name for path in paths)
    if url is not None:
        with describing(url, defines=False) as describe:
            recording = build(job.version, logged.events, describe, where=where, redaction=job.redaction)
    else:
        job.say("starting PostgreSQL")
        with scratch_postgres() as server:
            scratch = server.create_database(_DATABASE)
            job.schema.lay(scratch)
            job.schema.finish(scratch)
            with describing(scratch) as describe:
                recording = build(job.version, logged.events, describe, where=where, redaction=job.redaction)
    if logged.cut:
        told["sendings whose parameters the log had cut (log_parameter_max_length)"] = logged.cut
    recording = Recording(recording.corpus, recording.redacted, {**recording.left_out, **told})
    return _with_something(recording, f"in {where}", job)


def record_statistics(job: Job, url: str) -> Recording:
    """Make a corpus, without values, of a server's pg_stat_statements.

    Raises:
        Unavailable: The server does not answer, or has no pg_stat_statements.
        Blocked: There is no statement in it.
    """
    events, utility = read_statistics(url)
    with describing(url, defines=False) as describe:
        recording = build(job.version, events, describe, where="pg_stat_statements", redaction=job.redaction)
    told = {"utility statements, whose order pg_stat_statements does not tell": utility} if utility else {}
    recording = Recording(recording.corpus, recording.redacted, {**recording.left_out, **told})
    return _with_something(recording, "in pg_stat_statements", job)


def _of_one_database(logged: Logged, url: str | None) -> dict[str, int]:
    """Keep what was sent to the database at hand, else to the one that most was sent to; answer what went."""
    name = database_of(url) if url else next((name for name, _ in logged.by_database().most_common(1)), "")
    kept = [event for event in logged.events if logged.databases.get(event.session) == name]
    gone = len(logged.events) - len(kept)
    logged.events = kept
    return {f"sendings to other databases than {name}": gone} if gone else {}


def _made(job: Job, logged: Logged, server: EmbeddedPostgres, where: str) -> Recording:
    """A corpus of what was logged, described where most of it was sent, if that database is still there."""
    with connect(server.url()) as connection:
        there = {str(row[0]) for row in connection.execute("SELECT datname FROM pg_database WHERE datallowconn")}
    database = next((name for name, _ in logged.by_database().most_common() if name in there), _DATABASE)
    with describing(server.url(database)) as describe:
        recording = build(job.version, logged.events, describe, where=where, redaction=job.redaction)
    return _with_something(recording, "", job)


def _with_something(recording: Recording, where: str, job: Job) -> Recording:
    if recording.corpus.statements:
        return recording
    whose = f" with application_name {job.application_name}" if job.application_name else ""
    raise Blocked(
        f"no statement{whose} was seen{' ' + where if where else ''}",
        hint="does the command use DATABASE_URL, and the app its own application_name?"
        if job.command
        else "are statements and durations logged there, and is the application_name the app's?",
    )


def _environment(job: Job, port: int, password: str) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
    url = f"postgresql://postgres:{password}@{LOOPBACK}:{port}/{_DATABASE}"
    return {
        **kept,
        "DATABASE_URL": url,
        "PGHOST": LOOPBACK,
        "PGPORT": str(port),
        "PGUSER": "postgres",
        "PGPASSWORD": password,
        "PGDATABASE": _DATABASE,
        "PGAPPNAME": job.application_name or job.version,
    }


def _run(command: Sequence[str], job: Job, env: Mapping[str, str]) -> None:
    """Run a command, its output passed on as it comes.

    Raises:
        Blocked: It failed.
        Unavailable: There is no such command.
    """
    if shutil.which(command[0]) is None and not (job.cwd / command[0]).is_file():
        raise Unavailable(f"{command[0]} cannot be started: there is no such program")
    try:
        process = subprocess.Popen(
            [*tied_to_us(), *command],
            cwd=job.cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        raise Unavailable(f"{command[0]} cannot be started: {error.strerror or error}") from None
    assert process.stdout is not None
    tail: deque[bytes] = deque(maxlen=_TAIL)
    reader = threading.Thread(target=_pass_on, args=(process.stdout, job.echo, tail), daemon=True)
    reader.start()
    try:
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    reader.join(_LEFT)  # what it left running may hold its output open
    if code:
        told = b"".join(tail).decode(errors="replace").strip()
        raise Blocked(f"`{shlex.join(command)}` exited {code}, so nothing was recorded:\n{told}")


def _pass_on(output: IO[bytes], echo: Callable[[bytes], None], tail: deque[bytes]) -> None:
    with output:
        for line in output:
            tail.append(line)
            echo(line)


def _wait_for_others(url: str) -> None:
    """A client may be gone while the server still works off what it sent."""
    deadline = time.monotonic() + _LEFT
    with connect(url) as connection:
        while connection.execute(_OTHERS).fetchone() != (0,) and time.monotonic() < deadline:
            time.sleep(0.05)


def _mark(url: str) -> str:
    """Write a mark into the log and answer it."""
    mark = f"SELECT 'mark {secrets.token_hex(8)}'"
    with connect(url) as connection:
        connection.execute(mark.encode())
    return mark


def _between(server: EmbeddedPostgres, begin: str, end: str) -> Iterator[LogEntry]:
    """The lines between two marks.

    Raises:
        Unavailable: They are not in the log.
    """
    path = server.data_dir / "jsonlog" / "recording.json"
    deadline = time.monotonic() + _PATIENCE
    while True:
        text = path.read_text(encoding="utf-8", errors="replace")
        if f"statement: {end}" in text:
            break
        if time.monotonic() > deadline:
            raise Unavailable(f"the log of the PostgreSQL in {server.data_dir} lags behind, or is gone")
        time.sleep(0.05)
    inside = False
    for entry in json_entries(text.splitlines()):
        message = entry.get("message")
        if message == f"statement: {end}":
            return
        if inside:
            yield entry
        inside = inside or message == f"statement: {begin}"
