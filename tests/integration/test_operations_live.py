"""Every operation through its whole cycle on a real PostgreSQL, with both versions at work."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
from helpers.changes import (
    CASES,
    NEW,
    OLD,
    OTHER,
    REQUIRED,
    SPLIT,
    Case,
    Row,
    live_plan,
    pure_plan,
    run_phase,
    session,
)
from helpers.repository import make_repository
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallelchange.adapters.postgres.backfill import run_backfill
from parallelchange.adapters.postgres.catalog import read_catalog
from parallelchange.adapters.postgres.database import PostgresDatabase
from parallelchange.adapters.postgres.laws import measure_law
from parallelchange.adapters.postgres.ledger import PostgresLedger
from parallelchange.emit.alembic import emit
from parallelchange.model import Lock, Phase, State, Statement
from parallelchange.operations import ChangeType, RenameColumn, SetNotNull, SplitColumn
from parallelchange.plan import Plan, state_of
from parallelchange.sql import columns, ident, qualified

Session = psycopg.Connection[Any]

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
columns_cases = {name: case for name, case in CASES.items() if not case.in_place}
each_columns_case = pytest.mark.parametrize("case", columns_cases.values(), ids=columns_cases)

ROWS = 300


class Table:
    """A case's table through the eyes of a version."""

    def __init__(self, case: Case, connection: Session, *, new: bool) -> None:
        self.case, self.connection = case, connection
        self.name = qualified(case.base.name.schema, case.base.name.name)
        self.written = case.new if new else case.old

    def insert(self, key: int, values: Row, *, upsert: bool = False) -> None:
        names = columns((self.case.key, *self.written))
        marks = ", ".join(["%s"] * (1 + len(values)))
        sql = f"INSERT INTO {self.name} ({names}) VALUES ({marks})"
        if upsert:
            sets = ", ".join(f"{ident(name)} = EXCLUDED.{ident(name)}" for name in self.written)
            sql += f" ON CONFLICT ({ident(self.case.key)}) DO UPDATE SET {sets}"
        self.connection.execute(sql, (key, *values))

    def insert_nothing(self, key: int) -> None:
        self.connection.execute(f"INSERT INTO {self.name} ({ident(self.case.key)}) VALUES (%s)", (key,))

    def update(self, key: int, values: Row) -> None:
        self.update_columns(key, dict(zip(self.written, values, strict=True)))

    def update_columns(self, key: int, values: dict[str, Any]) -> None:
        sets = ", ".join(f"{ident(name)} = %s" for name in values)
        self.connection.execute(
            f"UPDATE {self.name} SET {sets} WHERE {ident(self.case.key)} = %s", (*values.values(), key)
        )

    def read(self, key: int, names: tuple[str, ...]) -> Row | None:
        return self.connection.execute(
            f"SELECT {columns(names)} FROM {self.name} WHERE {ident(self.case.key)} = %s", (key,)
        ).fetchone()

    def all(self, names: tuple[str, ...]) -> dict[int, Row]:
        rows = self.connection.execute(f"SELECT {columns((self.case.key, *names))} FROM {self.name}")
        return {key: tuple(rest) for key, *rest in rows}


@contextmanager
def live(url: str, case: Case) -> Iterator[tuple[Session, Plan]]:
    """A fresh table of the case and its plan, read from the server."""
    with session(url, "parallelchange") as connection:
        connection.execute(case.ddl)
        plan = live_plan(connection, case.operation)
        yield connection, plan


def broken(connection: Session, plan: Plan, state: State) -> dict[str, int | None]:
    """Laws that do not hold, with the number of rows that break them."""
    facts = [measure_law(connection, law, state) for law in plan.laws]
    assert not [fact.error for fact in facts if fact.error]
    return {fact.id: fact.broken for fact in facts if fact.broken}


def backfill(url: str, plan: Plan) -> None:
    with closing(PostgresLedger(url, plan.change.name)) as ledger:
        ledger.open()
    for work in plan.backfills:
        with session(url, "parallelchange") as connection:
            table = plan.base.tables[work.table]
            run_backfill(connection, plan.change.name, work, table, rows_per_second=None, progress=lambda *_: None)


def draw(values: st.SearchStrategy[Row], number: int) -> list[Row]:
    """Values of a strategy, the same in every run."""
    found: list[Row] = []

    @settings(max_examples=number, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(values)
    def collect(row: Row) -> None:
        found.append(row)

    collect()
    return found


class Writer(threading.Thread):
    """One version at work until it is stopped; what it could not do is kept."""

    keys = count(10_000)

    def __init__(self, url: str, case: Case, name: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.case, self.new = case, name == NEW
        self.values = draw(case.new_values if self.new else case.old_values, 40)
        self.connection = session(url, name)
        self.random = random.Random(seed)
        self.stopping = threading.Event()
        self.errors: list[Exception] = []
        self.writes = 0

    def run(self) -> None:
        table = Table(self.case, self.connection, new=self.new)
        while not self.stopping.is_set():
            values = self.random.choice(self.values)
            try:
                match self.random.randrange(4):
                    case 0:
                        table.insert(next(self.keys), values)
                    case 1:
                        table.insert(self.random.randrange(ROWS), values, upsert=True)
                    case 2:
                        table.update_columns(self.random.randrange(ROWS), {self.case.spare: "seen"})
                    case _:
                        table.update(self.random.randrange(ROWS), values)
            except psycopg.Error as error:
                self.errors.append(error)
            self.writes += 1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.join(20)
        self.connection.close()
        assert self.errors == []


def wait_for(what: Callable[[], bool]) -> None:
    for _ in range(2000):
        if what():
            return
        threading.Event().wait(0.005)
    raise AssertionError("waited too long")


@every_case
def test_the_whole_cycle_with_both_versions_writing(database: str, case: Case) -> None:
    with live(database, case) as (connection, plan):
        old = Table(case, connection, new=False)
        for key, values in zip(range(ROWS), draw(case.old_values, 40) * 10, strict=False):
            old.insert(key, values)
        before, fingerprint = old.all(case.old), read_catalog(connection, plan.tables).fingerprint
        assert broken(connection, plan, State.BASE) == {}

        run_phase(connection, plan.expand)
        run_phase(connection, plan.revert)
        assert read_catalog(connection, plan.tables).fingerprint == fingerprint
        assert old.all(case.old) == before

        with Writer(database, case, OLD, 1) as v1:
            run_phase(connection, plan.expand)
            wait_for(lambda: v1.writes > 50)
            backfill(database, plan)
            assert broken(connection, plan, State.EXPANDED) == {}
            with Writer(database, case, NEW, 2) as v2:
                for reached in (50, 100, 150, 200, 250):
                    wait_for(lambda reached=reached: min(v1.writes, v2.writes) > reached)  # type: ignore[misc]
                    assert broken(connection, plan, State.EXPANDED) == {}

        assert state_of(plan, read_catalog(connection, plan.tables)) == (State.EXPANDED, ())
        with Writer(database, case, NEW, 3) as v2:
            wait_for(lambda: v2.writes > 20)
            run_phase(connection, plan.migrate)
            wait_for(lambda: v2.writes > 60)
            run_phase(connection, plan.contract)
            contracted = v2.writes
            wait_for(lambda: v2.writes > contracted + 50)
        assert state_of(plan, read_catalog(connection, plan.tables)) == (State.CONTRACTED, ())
        final = Table(case, connection, new=True)
        assert len(final.all(case.new)) > ROWS
        if not case.in_place:  # the default that the trigger gave is now the column's own
            final.insert_nothing(-1)
            assert final.read(-1, case.new) == case.new_default[1]


def test_the_cases_are_told_by_the_catalog_as_they_are_written(database: str) -> None:
    for name, case in CASES.items():
        with session(database, "parallelchange") as connection, connection.transaction(force_rollback=True):
            connection.execute(case.ddl)
            table = read_catalog(connection, [case.base.name]).tables[case.base.name]
            assert (table.columns, table.primary_key) == (case.base.columns, case.base.primary_key), name
            assert pure_plan(case).digest == live_plan(connection, case.operation).digest


# What each version reads after each write, against an oracle.


@contextmanager
def expanded(url: str, case: Case) -> Iterator[tuple[Session, Session, Session]]:
    """An expanded, empty table and sessions of the old version, the new version and of nobody declared."""
    with live(url, case) as (connection, plan):
        run_phase(connection, plan.expand)
        with session(url, OLD) as old, session(url, NEW) as new, session(url, OTHER) as other:
            yield old, new, other


KINDS = ("insert", "update", "upsert", "spare", "delete")


def _writes(case: Case) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    write = st.booleans().flatmap(
        lambda new: st.tuples(
            st.just(new), st.booleans(), st.sampled_from(KINDS), st.integers(0, 4),
            case.new_values if new else case.old_values,
        )
    )  # fmt: skip
    return st.lists(write, max_size=25)


@every_case
def test_after_each_write_both_versions_read_what_they_should(database: str, case: Case) -> None:
    with expanded(database, case) as (old, new, other):
        name = qualified(case.base.name.schema, case.base.name.name)

        @settings(max_examples=25, deadline=None)
        @given(_writes(case))
        def check(writes: list[tuple[Any, ...]]) -> None:
            other.execute(f"TRUNCATE {name}")
            rows: dict[int, tuple[Row, Row]] = {}
            for by_new, declared, kind, key, values in writes:
                connection = (new if by_new else old) if declared else other
                # By value nothing but a non-null new column tells the new version.
                if not declared and kind in ("insert", "upsert") and by_new and set(values) == {None}:
                    continue
                table = Table(case, connection, new=by_new)
                both = (case.down(values), values) if by_new else (values, case.up(values))
                if case.in_place:
                    both = (case.up(values),) * 2
                match kind:
                    case "insert" if key not in rows:
                        table.insert(key, values)
                        rows[key] = both
                    case "upsert" if key not in rows:
                        table.insert(key, values, upsert=True)
                        rows[key] = both
                    case "update" | "upsert" if key in rows:
                        # An UPDATE that changes nothing of its own shape leaves the other one alone.
                        if rows[key][by_new] != both[by_new]:
                            rows[key] = both
                        table.update(key, values)
                    case "spare":
                        table.update_columns(key, {case.spare: "seen"})
                    case "delete":
                        connection.execute(f"DELETE FROM {name} WHERE {ident(case.key)} = %s", (key,))
                        rows.pop(key, None)
            shown = Table(case, other, new=True)
            assert shown.all(case.old) == {key: both[0] for key, both in rows.items()}
            assert shown.all(case.new) == {key: both[1] for key, both in rows.items()}

        check()


@every_case
def test_an_insert_of_nothing_gives_each_version_its_default(database: str, case: Case) -> None:
    with expanded(database, case) as (old, new, other):
        for key, connection, both in (
            (1, old, case.old_default),
            (2, new, case.new_default),
            (3, other, case.old_default),
        ):
            table = Table(case, connection, new=connection is new)
            table.insert_nothing(key)
            assert (table.read(key, case.old), table.read(key, case.new)) == both


@each_columns_case
def test_an_update_of_both_shapes_that_disagree_is_refused(database: str, case: Case) -> None:
    with expanded(database, case) as connections:
        for key, connection in enumerate(connections):
            table = Table(case, connection, new=True)
            table.insert_nothing(key)
            before = table.read(key, case.old)
            with pytest.raises(psycopg.errors.IntegrityError, match=r"parallel change a-change: .* they disagree"):
                table.update_columns(key, case.disagree)
            assert table.read(key, case.old) == before
            table.update_columns(key, case.agree)
            assert table.read(key, tuple(case.agree)) == tuple(case.agree.values())


@each_columns_case
def test_an_insert_of_both_shapes_that_disagree_is_refused(database: str, case: Case) -> None:
    names = columns((case.key, *case.disagree))
    marks = ", ".join(["%s"] * (1 + len(case.disagree)))
    sql = f"INSERT INTO {qualified('public', case.base.name.name)} ({names}) VALUES ({marks})"
    with expanded(database, case) as (_, new, other):
        for key, connection in enumerate((new, other)):
            table = Table(case, connection, new=True)
            connection.execute(sql, (key, *case.agree.values()))
            assert table.read(key, tuple(case.agree)) == tuple(case.agree.values())
            with pytest.raises(psycopg.errors.IntegrityError, match=r"parallel change a-change: .* they disagree"):
                connection.execute(sql, (key + 10, *case.disagree.values()))


def test_a_null_set_by_the_new_version_stays_null(database: str) -> None:
    """The default is for an INSERT; a column that is set to NULL later is NULL after contract, and so before."""
    with session(database, NEW) as new:
        new.execute("CREATE TABLE t (id bigint PRIMARY KEY, a text DEFAULT 'none')")
        run_phase(new, live_plan(new, RenameColumn(table="t", column="a", to="b")).expand)
        new.execute("INSERT INTO t (id, b) VALUES (1, 'x')")
        new.execute("UPDATE t SET b = NULL")
        assert new.execute("SELECT a, b FROM t").fetchone() == (None, None)


@every_case
def test_a_write_to_neither_shape_does_not_enter_the_trigger(database: str, case: Case) -> None:
    with expanded(database, case) as connections:
        for key, connection in enumerate(connections):
            connection.execute("SET track_functions = 'pl'")
            old, new = Table(case, connection, new=False), Table(case, connection, new=True)
            old.insert_nothing(key)
            stored, now = new.read(key, case.new), old.read(key, case.old)
            assert stored is not None
            with entering(connection, times=0):
                old.update_columns(key, {case.spare: "x"})
            with entering(connection, times=0):
                new.update(key, stored)
            with entering(connection, times=0 if case.in_place else 1):
                old.update(key, next(values for values in draw(case.old_values, 20) if values not in (now, (None,))))


@contextmanager
def entering(connection: Session, *, times: int) -> Iterator[None]:
    """Assert how often PL/pgSQL is entered by what is done inside."""

    def calls() -> int:
        row = connection.execute("SELECT coalesce(sum(calls), 0) FROM pg_stat_xact_user_functions").fetchone()
        assert row is not None
        return int(row[0])

    with connection.transaction():
        before = calls()
        yield
        assert calls() - before == times


def test_what_compares_equal_and_reads_differently_has_moved(database: str) -> None:
    """1.0 and 1.00 are equal numbers and different texts."""
    operation = ChangeType(table="t", column="a", to="b", type="text")
    with session(database, OLD) as old:
        old.execute("CREATE TABLE t (id bigint PRIMARY KEY, a numeric)")
        run_phase(old, live_plan(old, operation).expand)
        old.execute("INSERT INTO t VALUES (1, 1.0)")
        old.execute("UPDATE t SET a = 1.00")
        assert old.execute("SELECT b FROM t").fetchone() == ("1.00",)


def test_an_expression_over_a_generated_column_is_refused_or_right(database: str) -> None:
    """The server computes generated columns after BEFORE triggers, so that there they are empty."""
    with session(database, OLD) as old:
        old.execute("CREATE TABLE t (id bigint PRIMARY KEY, a text, twice bigint GENERATED ALWAYS AS (id * 2) STORED)")
        operation = SetNotNull(table="t", column="a", up="twice::text")
        plan = live_plan(old, operation)
        if "twice" not in operation.expressions(plan.base.tables[operation.table_name])[0].over:
            return
        run_phase(old, plan.expand)
        old.execute("INSERT INTO t (id) VALUES (4)")
        assert old.execute("SELECT a FROM t").fetchone() == ("8",)


def test_every_word_is_quoted_so_that_the_server_takes_it(database: str) -> None:
    refused = []
    with session(database, "parallelchange") as connection:
        words = [word for (word,) in connection.execute("SELECT word FROM pg_get_keywords()")]
        for word in [*words, "User Table", 'na"me', "1st", "a$b", "ß", "100%"]:
            name = ident(word)
            try:
                with connection.transaction(force_rollback=True):
                    connection.execute(f"CREATE TABLE {name} ({name} int)")
                    found = connection.execute(f"SELECT {name}, (x.{name}), ({name}) FROM {name} AS x").description
                    connection.execute(f"ALTER TABLE {qualified('public', word)} DROP COLUMN {name}")
            except psycopg.errors.SyntaxError:
                refused.append(word)
            else:
                assert found is not None
                refused += [word] if found[0].name != word else []
    assert refused == []


# Locks.


def _strongest(connection: Session, statement: Statement) -> Lock:
    """The strongest lock a statement, alone in its transaction, holds on its table."""
    with connection.transaction():
        connection.execute(statement.sql)
        modes = connection.execute(
            "SELECT l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE l.pid = pg_backend_pid() AND n.nspname = 'public' AND c.relkind = 'r'"
        ).fetchall()
    by_mode = {lock.mode: lock for lock in Lock if lock is not Lock.NONE}
    return max((by_mode[mode] for (mode,) in modes), default=Lock.NONE)


@every_case
def test_each_statement_takes_the_lock_it_declares(database: str, case: Case) -> None:
    with live(database, case) as (connection, plan):
        Table(case, connection, new=False).insert_nothing(1)
        for statements in (plan.expand, plan.revert, plan.expand):
            for statement in statements:
                assert _strongest(connection, statement) is statement.lock, statement.sql
        backfill(database, plan)
        for statement in (*plan.migrate, *plan.contract):
            assert _strongest(connection, statement) is statement.lock, statement.sql


def test_set_not_null_scans_nothing_once_it_is_proven(database: str) -> None:
    with live(database, REQUIRED) as (connection, plan):
        connection.execute("INSERT INTO customers SELECT n, 'a b' FROM generate_series(1, 500) n")
        run_phase(connection, plan.expand)
        backfill(database, plan)
        run_phase(connection, plan.migrate)
        notes: list[str] = []
        connection.add_notice_handler(lambda note: notes.append(note.message_primary or ""))
        with connection.transaction():
            connection.execute("SET LOCAL client_min_messages = debug1")
            strong = next(i for i, s in enumerate(plan.contract) if s.sql.startswith("LOCK TABLE"))
            for statement in plan.contract[:strong]:
                connection.execute(statement.sql)
            assert 'verifying table "customers"' in notes
            notes.clear()
            for statement in plan.contract[strong:]:
                connection.execute(statement.sql)
        assert any("sufficient to prove" in note for note in notes)
        assert not any(note.startswith(("verifying table", "rewriting table")) for note in notes)


# Through Alembic.


@every_case
def test_the_emitted_revisions_do_the_same(database: str, tmp_path: Path, case: Case) -> None:
    ini = make_repository(tmp_path, sql=case.ddl)
    with live(database, case) as (connection, plan):
        # Alembic has recorded the app's own revision: the table is there.
        connection.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        connection.execute("INSERT INTO alembic_version VALUES ('0001')")
        with closing(PostgresLedger(database, plan.change.name)) as ledger:
            ledger.open()
        emit(plan, ini)
        v1 = session(database, OLD)
        old = Table(case, v1, new=False)
        for key, values in enumerate(draw(case.old_values, 20)):
            old.insert(key, values)
        before = old.all(case.old)
        with v1, closing(PostgresDatabase(database, plan, ini, patience=10)) as ours:
            assert ours.revision_problems(State.BASE) == ()
            ours.apply(Phase.EXPAND)
            assert ours.revision_problems(State.EXPANDED) == ()
            ours.revert()
            assert ours.revision_problems(State.BASE) == ()
            assert old.all(case.old) == before
            ours.apply(Phase.EXPAND)
            ours.backfill(lambda *_: None)
            assert all(fact.broken == 0 for fact in ours.laws(State.EXPANDED))
            expected = {key: case.up(values) for key, values in before.items()}
            assert old.all(case.new) == expected
            v1.close()
            ours.apply(Phase.MIGRATE)
            applied = ours.apply(Phase.CONTRACT)
            assert 0 < applied.exclusive_seconds <= applied.seconds
            assert state_of(plan, ours.catalog()) == (State.CONTRACTED, ())
            assert ours.revision_problems(State.CONTRACTED) == ()
        assert Table(case, connection, new=True).all(case.new) == expected


def test_laws_tell_of_the_rows_that_would_break_before_anything_is_done(database: str) -> None:
    lossy = SplitColumn(
        table="customers", column="name", into={"first_name": "text", "last_name": "text"},
        up={"first_name": "split_part(name, ' ', 1)", "last_name": "split_part(name, ' ', 2)"},
        down="first_name || ' ' || last_name",
    )  # fmt: skip
    with session(database, "parallelchange") as connection:
        connection.execute(SPLIT.ddl)
        connection.execute("INSERT INTO customers VALUES (1, 'Ada Lovelace'), (2, 'Mary Ann Evans'), (3, 'Plato')")
        plan = live_plan(connection, lossy)
        foretold = measure_law(connection, plan.laws[0], State.BASE)
        assert (foretold.rows, foretold.broken, foretold.foretold) == (3, 2, True)
        assert {row["name"] for row in foretold.examples} == {"Mary Ann Evans", "Plato"}
        run_phase(connection, plan.expand)
        backfill(database, plan)
        assert broken(connection, plan, State.EXPANDED) == {"customers.name": 2}
        with pytest.raises(psycopg.errors.CheckViolation, match=r"rows of public\.customers break the law"):
            run_phase(connection, plan.migrate)
