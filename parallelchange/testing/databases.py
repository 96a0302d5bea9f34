"""Databases for an app's tests: the change's states on a scratch server, each made once and cloned for every test."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from parallelchange.adapters.planning import load_plan, lock_path
from parallelchange.adapters.postgres.connection import connect
from parallelchange.adapters.postgres.database import PostgresDatabase
from parallelchange.adapters.postgres.revisions import Revisions
from parallelchange.change import Change, Version
from parallelchange.cli.settings import load_settings
from parallelchange.errors import SchemaState, UsageError
from parallelchange.local.changing import changing, expand
from parallelchange.local.postgres import EmbeddedPostgres, scratch_postgres
from parallelchange.local.process import LOOPBACK, ReservedPort
from parallelchange.local.schemas import to_base
from parallelchange.model import Phase, State
from parallelchange.plan import Plan, state_of
from parallelchange.testing.proofs import prove_laws, prove_statements, run_statements

__all__ = ["ChangeDatabases", "ScratchDatabase", "ScratchServer", "Seed", "read_plan", "version_of"]

Seed = Callable[[psycopg.Connection[TupleRow]], object]
"""Fills the tables of the base schema; what it does is committed."""

_ELSEWHERE = ("PGHOSTADDR", "PGSERVICE")
_BEFORE = {State.EXPANDED: State.BASE, State.CONTRACTED: State.EXPANDED}


def read_plan(path: Path) -> tuple[Plan, Path]:
    """Read a change file for tests.

    Returns:
        Its plan, and the repository's `alembic.ini`.

    Raises:
        InvalidFile: The change file or its lock file cannot be used.
        UsageError: It has no lock file, and so no revisions.
    """
    settings = load_settings(path.parent)
    if path.is_file() and not lock_path(path).is_file():
        raise UsageError(
            f"{path} has no lock file, so its revisions were never written",
            hint=f"run: parallelchange emit alembic {path}",
        )
    return load_plan(path), settings.alembic


def version_of(change: Change, which: str) -> Version:
    """The version of that name; `old` and `new` stand for the one and the other.

    Raises:
        UsageError: The change has no such version.
    """
    known = {"old": change.old, "new": change.new, change.old.name: change.old, change.new.name: change.new}
    if which not in known:
        raise UsageError(
            f"{change.name} has no version {which!r}", hint=f"name old or new, {change.old.name} or {change.new.name}"
        )
    return known[which]


@dataclass
class ScratchServer:
    """One scratch PostgreSQL with a template database for each state that a test has asked for.

    Args:
        postgres: The server; we reach it by its socket.
        port: Port on this machine's loopback, for apps in languages that know no sockets.
        password: Of every role there.
    """

    postgres: EmbeddedPostgres
    port: int
    password: str = field(repr=False)
    _plans: dict[Path, tuple[Plan, Path]] = field(default_factory=dict)
    _templates: dict[tuple[Path, Seed | None, State], str] = field(default_factory=dict)
    _outcomes: dict[tuple[Path, Seed | None, State, str], Any] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[ScratchServer]:
        """Start it; it is gone with all its databases at the end.

        Raises:
            Unavailable: It does not start.
            UsageError: The environment would lead sessions to another server.
        """
        for variable in _ELSEWHERE:
            if os.environ.get(variable):
                raise UsageError(
                    f"{variable} is set, and libpq would follow it away from the scratch server", hint="unset it"
                )
        port, password = ReservedPort(), secrets.token_hex(16)
        try:
            with scratch_postgres() as postgres:
                postgres.listen(port.number, password)
                yield cls(postgres, port.number, password)
        finally:
            port.release()

    def plan(self, path: Path) -> tuple[Plan, Path]:
        """The plan of a change and its repository's `alembic.ini`, read once; see `read_plan`."""
        if path not in self._plans:
            plan, ini = read_plan(path)
            for version in plan.change.versions:
                if version.role:
                    self._make_role(version.role)
            self._plans[path] = plan, ini
        return self._plans[path]

    def clone(self, path: Path, seed: Seed | None, state: State) -> str:
        """A fresh database in a state of a change; its name."""
        return self._copy(self._template(path, seed, state))

    def drop(self, name: str) -> None:
        """Drop a database and end its sessions."""
        self.postgres.drop_database(name)

    def outcomes(self, path: Path, seed: Seed | None, state: State, version: Version) -> Any:
        """What became of a version's recorded statements on the untouched database of a state; run once."""
        key = (path, seed, state, version.name)
        if key not in self._outcomes:
            name = self.clone(path, seed, state)
            try:
                self._outcomes[key] = run_statements(self.postgres.url(name), version)
            finally:
                self.drop(name)
        return self._outcomes[key]

    def _template(self, path: Path, seed: Seed | None, state: State) -> str:
        key = (path, seed, state)
        if key not in self._templates:
            earlier = _BEFORE.get(state)
            name = f"made_{next(self._numbers)}"
            if earlier is None:
                self.postgres.create_database(name)
            else:
                name = self._copy(self._template(path, seed, earlier))
            try:
                self._reach(name, path, seed, state)
                self._close_to_sessions(name)
            except BaseException:
                self.drop(name)
                raise
            self._templates[key] = name
        return self._templates[key]

    def _copy(self, template: str) -> str:
        name = f"scratch_{next(self._numbers)}"
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def _reach(self, name: str, path: Path, seed: Seed | None, state: State) -> None:
        """Bring a database from the state before into this one."""
        plan, ini = self.plan(path)
        url = self.postgres.url(name)
        if state is State.BASE:
            to_base(Revisions(url, plan, ini), self._make_role)
            if seed is not None:
                with psycopg.connect(url, application_name="parallelchange") as connection:
                    seed(connection)
            return
        with changing(url, plan, ini) as database:
            if state is State.EXPANDED:
                expand(database)
            else:
                database.apply(Phase.MIGRATE)
                database.apply(Phase.CONTRACT)
            found, differences = state_of(plan, database.catalog())
            problems = (*differences, *database.revision_problems(state))
            if found is not state or problems:
                raise SchemaState(
                    f"{plan.change.name} cannot be brought to {state}: {'; '.join(problems) or f'it is {found}'}",
                    hint=f"write its revisions again: parallelchange emit alembic {path}",
                )

    def _close_to_sessions(self, name: str) -> None:
        # A session in a template keeps it from being cloned.
        self._execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))

    def _make_role(self, role: str) -> None:
        with connect(self.postgres.url()) as connection:
            if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
                verifier = connection.pgconn.encrypt_password(
                    self.password.encode(), role.encode(), b"scram-sha-256"
                ).decode()
                create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
                connection.execute(create.format(sql.Identifier(role), sql.Literal(verifier)))

    def _execute(self, statement: sql.Composed) -> None:
        with connect(self.postgres.url()) as connection:
            connection.execute(statement)


@dataclass(frozen=True)
class ScratchDatabase:
    """A database of a test's own, in one state of the change.

    Args:
        owner: What it was asked of.
        name: Its name on the scratch server.
        state: The state it was in at first.
    """

    owner: ChangeDatabases
    name: str
    state: State

    @property
    def url(self) -> str:
        """Its URL, as superuser."""
        return self._url(None)

    def connect(self, as_: str | None = None, **options: Any) -> psycopg.Connection[TupleRow]:
        """Open a session.

        Args:
            as_: `old`, `new` or a version's name: with its application_name, and its role where it declares one.
            options: More of what `psycopg.connect` takes.

        Raises:
            UsageError: There is no such version.
        """
        version = version_of(self.owner.change, as_) if as_ else None
        if version and version.application_name:
            options.setdefault("application_name", version.application_name)
        return psycopg.connect(self._url(version), **options)

    def env(self, as_: str | None = None) -> dict[str, str]:
        """The environment for a program in any language: ours, with DATABASE_URL and PG* that name this database.

        Args:
            as_: As for `connect`; the application_name is in PGAPPNAME, which libpq and many other drivers read.

        Raises:
            UsageError: There is no such version.
        """
        version = version_of(self.owner.change, as_) if as_ else None
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        named = {"PGAPPNAME": version.application_name} if version and version.application_name else {}
        return {
            **kept,
            **named,
            "DATABASE_URL": self._url(version),
            "PGHOST": LOOPBACK,
            "PGPORT": str(self.owner.server.port),
            "PGUSER": _user(version),
            "PGPASSWORD": self.owner.server.password,
            "PGDATABASE": self.name,
        }

    def check_laws(self) -> None:
        """Hold every law of the change against every row.

        Raises:
            AssertionError: Rows break one, which it names with some of them; or a law could not be measured.
            UsageError: The change is contracted, and its laws have ended.
        """
        __tracebackhide__ = True
        if self.state is State.CONTRACTED:
            raise UsageError("laws hold until contract", hint="check them on expanded()")
        plan, ini = self.owner.server.plan(self.owner.path)
        with closing(PostgresDatabase(self._socket, plan, ini)) as database:
            prove_laws(database.laws(self.state))

    def check_statements(self, which: str) -> None:
        """Prepare a version's recorded statements, compare their columns, and run them, each rolled back.

        What failed in the state before the change took its step counts as no failure of the change.

        Args:
            which: `old`, `new` or a version's name.

        Raises:
            AssertionError: One of them is refused, has other columns, fails, or proves nothing.
            UsageError: There is no such version.
        """
        __tracebackhide__ = True
        owner = self.owner
        version = version_of(owner.change, which)
        begins = State.BASE if version is owner.change.old else State.EXPANDED
        before = None
        if self.state is not begins and version.statements is not None:
            earlier = _BEFORE.get(self.state)
            before = owner.server.outcomes(owner.path, owner.seed, earlier, version) if earlier else None
        prove_statements(self._socket, version, self.state, before)

    @property
    def _socket(self) -> str:
        return self.owner.server.postgres.url(self.name)

    def _url(self, version: Version | None) -> str:
        server = self.owner.server
        user = quote(_user(version), safe="")
        return f"postgresql://{user}:{server.password}@{LOOPBACK}:{server.port}/{self.name}"


def _user(version: Version | None) -> str:
    return (version.role if version else None) or "postgres"


@dataclass
class ChangeDatabases:
    """What the fixture `parallelchange` gives a test.

    Args:
        server: The scratch server of this test session.
        path: The change file.
        seed: Fills the tables of the base schema; None leaves them empty.
    """

    server: ScratchServer
    path: Path
    seed: Seed | None
    _made: list[ScratchDatabase] = field(default_factory=list)

    @property
    def plan(self) -> Plan:
        """The plan of the change."""
        return self.server.plan(self.path)[0]

    @property
    def change(self) -> Change:
        """The change."""
        return self.plan.change

    def base(self) -> ScratchDatabase:
        """A fresh database with the schema before the change."""
        return self._make(State.BASE)

    def expanded(self) -> ScratchDatabase:
        """A fresh database in which the change is expanded and backfilled: both versions work on it."""
        return self._make(State.EXPANDED)

    def contracted(self) -> ScratchDatabase:
        """A fresh database in which the change is contracted."""
        return self._make(State.CONTRACTED)

    def close(self) -> None:
        """Drop them all."""
        while self._made:
            self.server.drop(self._made.pop().name)

    def _make(self, state: State) -> ScratchDatabase:
        made = ScratchDatabase(self, self.server.clone(self.path, self.seed, state), state)
        self._made.append(made)
        return made
