"""A real PostgreSQL 15 with its contrib modules: pg_stat_statements is loaded, sessions come by TCP and by socket.

The fixture `fifteen` is the URL of a fresh database, `contrib` that of one in which the extension is made, and
`postgres15` is the server.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

BIN = Path("/usr/lib/postgresql/15/bin")
_SETTINGS = {
    "shared_preload_libraries": "pg_stat_statements",
    "wal_level": "logical",
    "max_prepared_transactions": "10",
    "log_min_messages": "fatal",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}
_numbers = count(1)


@dataclass(frozen=True)
class Postgres15:
    """The server.

    Args:
        folder: Its data and its socket.
        port: On the loopback address, and of the socket.
    """

    folder: Path
    port: int

    def url(self, database: str = "postgres", *, tcp: bool = False) -> str:
        """The URL of a database, as superuser."""
        if tcp:
            return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"
        return f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(user: str | None, *command: str | Path) -> None:
    """PostgreSQL does not run as root."""
    done = subprocess.run(
        [str(part) for part in command], check=False, capture_output=True, text=True, cwd="/", user=user,
        group=None if user is None else pwd.getpwnam(user).pw_gid, extra_groups=None if user is None else [],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.fixture(scope="session")
def postgres15() -> Iterator[Postgres15]:
    """A scratch PostgreSQL 15, stopped and deleted at the end of the session."""
    if not (BIN / "initdb").is_file():
        pytest.skip(f"there is no PostgreSQL 15 in {BIN}")
    user = None
    if os.geteuid() == 0:
        try:
            user = pwd.getpwnam("postgres").pw_name
        except KeyError:
            pytest.skip("as root it needs the user postgres to run as")
    folder = Path(tempfile.mkdtemp(prefix="parallelchange-pg15-", dir="/tmp"))
    if user:
        shutil.chown(folder, user)
    data, port = folder / "data", _free_port()
    try:
        _run(user, BIN / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        settings = {**_SETTINGS, "port": str(port), "unix_socket_directories": str(folder)}
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        _run(user, BIN / "pg_ctl", "-D", data, "-l", folder / "log", "-w", "start")
        yield Postgres15(folder, port)
    finally:
        if (data / "postmaster.pid").exists():
            _run(user, BIN / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def fifteen(postgres15: Postgres15) -> Iterator[str]:
    """The URL of a fresh database, dropped after the test."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(postgres15.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield postgres15.url(name)
    finally:
        with psycopg.connect(postgres15.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def contrib(fifteen: str, postgres15: Postgres15) -> str:
    """The URL of a fresh database with pg_stat_statements, by TCP."""
    with psycopg.connect(fifteen, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")
        return postgres15.url(connection.info.dbname, tcp=True)
