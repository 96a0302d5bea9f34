"""A whole rollout on a real database; the mesh, the copies and the rehearsal are doubles."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from parallelchange.adapters.local_router import LocalRouter
from parallelchange.adapters.planning import load_plan, write_lock
from parallelchange.adapters.postgres.database import PostgresDatabase
from parallelchange.adapters.postgres.ledger import PostgresLedger
from parallelchange.corpus import Corpus, Recorded, Step, Unit, write_corpus
from parallelchange.emit.alembic import emit
from parallelchange.gates import ON_COPY
from parallelchange.gates.base import Act
from parallelchange.model import Evidence, EvidenceKey, GateResult, Place, State, Verdict
from parallelchange.ports import Split
from parallelchange.rollout.advance import advance
from parallelchange.rollout.decide import Decision, Kind, decide
from parallelchange.rollout.judge import cells
from parallelchange.rollout.observe import ALL_VERSIONS, corpora, observe, specs
from parallelchange.rollout.world import Event, World, silent

from .changes import NEW, OLD
from .repository import add_revision, make_repository

V1, V2 = "v1", "v2"
Sent = tuple[Recorded, tuple[Unit, ...]]
"""A statement, and the units of work it was sent in."""
TABLE = "CREATE TABLE t (id bigint PRIMARY KEY, a text)"
ROWS = "INSERT INTO t SELECT g, 'x y' || g FROM generate_series(1, 50) g"
RENAME = "- rename_column: {table: t, column: a, to: b}"
LOSSY = """
- split_column:
    {table: t, column: a, into: {b: text, c: text}, up: {b: "split_part(a, ' ', 1)", c: "split_part(a, ' ', 2)"},
     down: "b || ' ' || c"}
"""
"""Loses the third word."""


def recorded(
    sql: str,
    columns: Sequence[str] = (),
    types: Sequence[str] = (),
    parameters: Sequence[Sequence[str | None]] = ((),),
) -> Sent:
    """A recorded statement; without parameters it is run once."""
    statement = Recorded(sql, tuple(types), tuple(columns), False, "test")
    return statement, tuple(Unit(1, (Step(statement.id, tuple(values)),)) for values in parameters)


def corpus_of(version: str, sent: Sequence[Sent]) -> Corpus:
    """A corpus of statements."""
    return Corpus(version, tuple(s for s, _ in sent), tuple(unit for _, units in sent for unit in units))


def run_sql(url: str, *statements: str, application: str = "psql") -> list[tuple[Any, ...]]:
    """Run statements in a session of that name, and give the rows of the last."""
    with psycopg.connect(url, autocommit=True, application_name=application) as session:
        for statement in statements:
            cursor = session.execute(statement)
        return cursor.fetchall() if cursor.description else []


def as_role(url: str, role: str) -> str:
    """The URL for another role."""
    return psycopg.conninfo.make_conninfo(url, user=role)


@contextmanager
def login_role(url: str, *rights: str) -> Iterator[str]:
    """A role that may log in and nothing else."""
    with psycopg.connect(url, autocommit=True, dbname="postgres") as admin:
        name = f"role_{admin.info.backend_pid}_{time.time_ns()}"
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        for right in rights:
            admin.execute(sql.SQL("GRANT {} TO {}").format(sql.SQL(right), sql.Identifier(name)))
        try:
            yield name
        finally:
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


class Mesh(LocalRouter):
    """A mesh that follows the split at once, unless it is told not to."""

    follows = True

    def settled(self, split: Split) -> bool:
        return self.follows


class Clock:
    """The time of day, and more whenever somebody sleeps."""

    def __init__(self) -> None:
        self.slept = 0.0

    def now(self) -> float:
        return time.time() + self.slept

    def sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.01))
        self.slept += seconds


class Copies:
    """The copies of both versions; each that runs holds a session on the database."""

    def __init__(self, url: str, names: dict[str, str | None]) -> None:
        self.url, self.names = url, names
        self.builds: dict[str, str | None] = {V1: "build-1", V2: "build-2"}
        self.copies: dict[str, list[psycopg.Connection[Any]]] = {V1: [], V2: []}
        for version in self.copies:
            self.scale(version, 1)

    def build(self, version: str) -> str | None:
        return self.builds[version]

    def ready(self, version: str) -> int | None:
        return len(self.copies[version])

    def wanted(self, version: str) -> int | None:
        return len(self.copies[version])

    def others(self) -> tuple[str, ...] | None:
        return ()

    def address(self, version: str) -> str | None:
        return None

    def scale(self, version: str, replicas: int) -> None:
        name = self.names[version]
        running = self.copies[version]
        while len(running) < replicas:
            running.append(psycopg.connect(self.url, autocommit=True, application_name=name or "?"))
        while len(running) > replicas:
            running[-1].close()
            running.pop()
        self._wait(name or "?", len(running))

    def _wait(self, name: str, sessions: int) -> None:
        """The server shows a session for a moment after its end."""
        asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()"
        with psycopg.connect(self.url, autocommit=True) as session:
            for _ in range(500):
                if session.execute(asked, (name,)).fetchone() == (sessions,):
                    return
                time.sleep(0.01)


class NoMetrics:
    """Measures nothing."""

    def read(self, version: str, window: float) -> None:
        return None


class Database(PostgresDatabase):
    """The database, its clock as much ahead as was slept."""

    clock = Clock()

    def now(self) -> float:
        return super().now() + self.clock.slept


@dataclass
class Scene:
    """A repository with an emitted change, its database, and the copies and the mesh of a rollout.

    Args:
        url: The database as the toolkit reaches it.
        folder: The repository.
        change: The change file.
        ini: The repository's `alembic.ini`.
        admin: The database as its superuser reaches it.
    """

    url: str
    folder: Path
    change: Path
    ini: Path
    admin: str
    copies: Copies
    clock: Clock = field(default_factory=Clock)
    rehearsals: int = 0
    _opened: list[World] = field(default_factory=list)

    def world(self, tell: Callable[[Event], None] = silent) -> World:
        """All the ports; each call gives sessions of their own, as another process has."""
        plan = load_plan(self.change, self.url)
        database = Database(self.url, plan, self.ini, patience=5.0)
        database.clock = self.clock
        ledger = PostgresLedger(self.url, plan.change.name)
        ledger.open()
        mesh = Mesh(self.folder / "split.json", service="shop", stable="shop-stable", canary="shop-canary")
        mesh.create()
        world = World(
            plan, database, ledger, mesh, self.copies, NoMetrics(), None, self.clock, self.rehearse, tell
        )  # fmt: skip
        self._opened.append(world)
        return world

    def rehearse(self) -> list[Evidence]:
        """A rehearsal that went well, on a schema like the live one."""
        self.rehearsals += 1
        world = self._opened[-1]
        obs = observe(world)
        wanted = [(gate, *cell) for gate in ON_COPY[1:] for cell in cells(world.plan)]
        wanted += [("rehearsal", ALL_VERSIONS, s) for s in (State.BASE, State.EXPANDED, State.CONTRACTED)]
        return [
            Evidence(
                EvidenceKey(
                    world.plan.change.name, version, gate, self.copies.builds.get(version) or "",
                    obs.fingerprint if state is obs.state else str(state), corpora(world.plan).get(version, ""),
                    world.plan.digest, specs(world.plan).get(version, ""), place=Place.COPY,
                ),
                GateResult(gate, Verdict.PASS, (), version), obs.now, f"run-{self.rehearsals}", state,
            )
            for gate, version, state in wanted
        ]  # fmt: skip

    def sql(self, *statements: str, application: str = "psql") -> list[tuple[Any, ...]]:
        """Run statements as the superuser."""
        return run_sql(self.admin, *statements, application=application)

    def configure(self, *settings: str) -> None:
        """Give the sessions to come other defaults."""
        with psycopg.connect(self.admin, autocommit=True) as session:
            name = sql.Identifier(session.info.dbname)
            for setting in settings:
                session.execute(sql.SQL("ALTER DATABASE {} SET " + setting).format(name))

    def close(self) -> None:
        """End all sessions."""
        for world in self._opened:
            world.database.close()
            world.ledger.close()
        for sessions in self.copies.copies.values():
            for session in sessions:
                session.close()


def make_scene(
    url: str,
    folder: Path,
    operations: str = RENAME,
    *,
    ddl: Sequence[str] = (TABLE, ROWS),
    old: Sequence[Sent] = (recorded("SELECT id FROM t", ["id bigint"]),),
    new: Sequence[Sent] = (recorded("SELECT id FROM t", ["id bigint"]),),
    names: tuple[str | None, str | None] = (OLD, NEW),
    extra: str = "",
    clients: str = "[psql]",
    drain: str = "0s",
    pending: str | None = None,
    role: str | None = None,
) -> Scene:
    """Make a database and a repository whose change is emitted and not yet begun.

    Args:
        url: An empty database, as superuser.
        folder: Where to make the repository.
        operations: The `database` list of the change file.
        ddl: Makes the tables.
        old: What the old version sends.
        new: What the new version sends.
        names: `application_name` that each version declares.
        extra: More keys of the change file.
        clients: Its `clients`.
        drain: How long the old version must be without traffic, and how long that is waited for.
        pending: SQL of a revision of the app's own that is not applied yet.
        role: The toolkit's own role, which then owns everything; None for the superuser.
    """
    ini = make_repository(folder, sql="SELECT 1")
    run_sql(url, *ddl, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)",
            "INSERT INTO alembic_version VALUES ('0001')")  # fmt: skip
    if pending:
        add_revision(folder, "0002", down="0001", sql=pending)
    if role:
        own = f"ALTER TABLE t OWNER TO {role}; ALTER TABLE alembic_version OWNER TO {role}"
        run_sql(url, f"ALTER SCHEMA public OWNER TO {role}; {own}")
        run_sql(url, f"DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {role}', current_database()); END $$")
    for version, statements in ((V1, old), (V2, new)):
        write_corpus(folder / f"{version}.json", corpus_of(version, statements))
    said = [f", application_name: {json.dumps(name, ensure_ascii=False)}" if name else "" for name in names]
    change = folder / "change.yaml"
    change.write_text(
        "change: a-change\nversions:\n"
        f"  old: {{name: {V1}, statements: {V1}.json, probe: none{said[0]}, role: postgres}}\n"
        f"  new: {{name: {V2}, statements: {V2}.json, probe: none{said[1]}, role: postgres}}\n"
        f"database:\n{textwrap.indent(operations.strip(), '  ')}\n"
        f"traffic: {{service: shop, stages: [5%, 100%], soak: 0s, drain: {drain}, drain_timeout: {drain}}}\n"
        f"metrics: none\nclients: {clients}\n{extra}\n",
        encoding="utf-8",
    )
    own_url = as_role(url, role) if role else url
    plan = load_plan(change, own_url)
    emit(plan, ini)
    write_lock(plan)
    return Scene(own_url, folder, change, ini, url, Copies(url, dict(zip((V1, V2), names, strict=True))))


@contextmanager
def scene_of(url: str, folder: Path, *arguments: Any, **options: Any) -> Iterator[Scene]:
    """`make_scene`, closed at the end."""
    scene = make_scene(url, folder, *arguments, **options)
    try:
        yield scene
    finally:
        scene.close()


def decision_on(world: World, *, to: int | None = None) -> Decision:
    """What would be done next, without doing it."""
    return decide(world.plan, observe(world), to=to)


def walk(world: World, until: Act, *, weight: int | None = None) -> Decision:
    """Go on as `rollout` does, and stop where it is about to do this."""
    with world.ledger.fenced():
        for _ in range(60):
            obs = observe(world)
            decision = decide(world.plan, obs)
            if decision.act is until and weight in (None, decision.weight):
                return decision
            if decision.kind is Kind.WAIT:
                world.wait(decision.seconds)
                continue
            assert decision.kind is Kind.DO, decision.why
            advance(world, obs, decision)
    raise AssertionError(f"never came to {until}")
