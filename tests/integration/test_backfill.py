"""The backfill: every row once, from wherever it was killed, and never over what a version wrote."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import psycopg
import pytest
from helpers.changes import NEW, OLD, live_plan, run_phase, session
from hypothesis import given
from hypothesis import strategies as st

from parallelchange.adapters.postgres import backfill as module
from parallelchange.adapters.postgres.backfill import BatchSize, run_backfill
from parallelchange.adapters.postgres.laws import measure_law
from parallelchange.adapters.postgres.ledger import PostgresLedger
from parallelchange.model import State, TableName
from parallelchange.operations import RenameColumn, SetNotNull, SplitColumn
from parallelchange.operations.trigger import Trigger
from parallelchange.plan import Plan

Session = psycopg.Connection[Any]
RENAME = RenameColumn(table="t", column="a", to="n")
CHANGE = "a-change"


class Killed(Exception):
    """The process ended here."""


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of ten rows, so that little data takes many of them."""
    monkeypatch.setattr(module, "_FIRST", 10)
    monkeypatch.setattr(module, "BatchSize", lambda limit: BatchSize(10, min(limit, 10)))


@pytest.fixture
def connection(database: str) -> Iterator[Session]:
    with session(database, "test") as connection, closing(PostgresLedger(database, CHANGE)) as ledger:
        ledger.open()
        yield connection


def expand(connection: Session, ddl: str, rows: str, operation: Any = RENAME) -> Plan:
    """Make a table with rows in it, and expand it; `updates` counts how often each row was updated since."""
    connection.execute(ddl)
    connection.execute(rows)
    plan = live_plan(connection, operation, name=CHANGE)
    run_phase(connection, plan.expand)
    return plan


def count_updates(connection: Session) -> None:
    connection.execute("""
        CREATE TABLE updates (id text);
        CREATE FUNCTION count_update() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN INSERT INTO updates VALUES (NEW.id::text); RETURN NULL; END$$;
        CREATE TRIGGER count_update AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION count_update();
    """)


def fill(url: str, plan: Plan, progress: Any = lambda *_: None, **rest: Any) -> None:
    with session(url, "parallelchange") as connection:
        for work in plan.backfills:
            table = plan.base.tables[work.table]
            run_backfill(connection, CHANGE, work, table, progress=progress, **{"rows_per_second": None, **rest})


def record(url: str, plan: Plan) -> dict[str, Any]:
    with closing(PostgresLedger(url, CHANGE)) as ledger:
        found = ledger.read()
        assert found is not None
        assert found.backfills is not None
        return dict(found.backfills[plan.backfills[0].id])


def rows_of(connection: Session, sql: str) -> list[Any]:
    return connection.execute(sql).fetchall()


T = "CREATE TABLE t (id bigint PRIMARY KEY, a text, note text)"
HUNDRED = "INSERT INTO t SELECT n, 'x' || n FROM generate_series(1, 100) n"


@pytest.mark.parametrize("kill", ["progress", "terminate", "close"])
def test_a_killed_backfill_goes_on_and_touches_each_row_once(database: str, connection: Session, kill: str) -> None:
    plan = expand(connection, T, HUNDRED)
    count_updates(connection)
    kills = 0
    while True:
        with session(database, "parallelchange") as worker:
            batches = 0

            def progress(what: str, done: int, total: int | None, worker: Session = worker) -> None:
                nonlocal batches
                batches += 1
                assert (what, total) == (plan.backfills[0].id, 100)
                if batches < 3:
                    return
                if kill == "progress":
                    raise Killed
                if kill == "terminate":
                    connection.execute("SELECT pg_terminate_backend(%s, 5000)", (worker.info.backend_pid,))
                else:
                    worker.close()

            work, table = plan.backfills[0], plan.base.tables[plan.backfills[0].table]
            with suppress(Killed, psycopg.OperationalError):
                run_backfill(worker, CHANGE, work, table, rows_per_second=None, progress=progress)
                break
            kills += 1
            assert record(database, plan)["rows"] == 30 * kills
    assert kills == 3
    assert rows_of(connection, "SELECT count(*), count(DISTINCT id) FROM updates") == [(100, 100)]
    assert rows_of(connection, "SELECT count(*) FROM t WHERE n IS DISTINCT FROM a") == [(0,)]
    assert record(database, plan)["finished"]
    fill(database, plan)
    assert rows_of(connection, "SELECT count(*) FROM updates") == [(100,)]


def test_a_batch_that_fails_leaves_its_cursor_where_it_was(database: str, connection: Session) -> None:
    operation = SplitColumn(table="t", column="a", into={"n": "integer"}, up={"n": "a::integer"}, down="n::text")
    rows = "INSERT INTO t SELECT n, CASE n WHEN 55 THEN 'x' ELSE n::text END FROM generate_series(1, 100) n"
    plan = expand(connection, T, rows, operation)
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        fill(database, plan)
    assert (record(database, plan)["rows"], record(database, plan)["finished"]) == (50, False)
    connection.execute("UPDATE t SET a = '55' WHERE id = 55")
    fill(database, plan)
    assert rows_of(connection, "SELECT count(*) FROM t WHERE n IS DISTINCT FROM a::integer") == [(0,)]


def test_what_the_new_version_wrote_is_not_written_over(database: str, connection: Session) -> None:
    operation = SplitColumn(
        table="t", column="a", into={"n": "text", "m": "text"}, up={"n": "a", "m": "'filled'"}, down="n"
    )
    plan = expand(connection, T, HUNDRED, operation)
    count_updates(connection)
    with session(database, NEW) as new:
        new.execute("UPDATE t SET n = 'mine', m = NULL WHERE id = 7")
        new.execute("INSERT INTO t (id, n) VALUES (200, 'mine')")
    connection.execute("TRUNCATE updates")
    fill(database, plan)
    assert rows_of(connection, "SELECT DISTINCT n, m, a FROM t WHERE id IN (7, 200)") == [("mine", None, "mine")]
    assert rows_of(connection, "SELECT count(*) FROM updates") == [(99,)]


def test_a_row_written_while_the_batch_waits_for_it_is_passed_over(database: str, connection: Session) -> None:
    plan = expand(connection, T, HUNDRED)
    with session(database, NEW) as new, session(database, "test") as looking:
        with new.transaction():
            new.execute("UPDATE t SET n = 'mine' WHERE id = 5")
            filling = threading.Thread(target=fill, args=(database, plan))
            filling.start()
            waiting = (
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE application_name = 'parallelchange' AND wait_event_type = 'Lock'"
            )
            for _ in range(1000):
                if rows_of(looking, waiting) == [(1,)]:
                    break
                threading.Event().wait(0.005)
            assert rows_of(looking, waiting) == [(1,)]
        filling.join(20)
    assert rows_of(connection, "SELECT a, n FROM t WHERE id = 5") == [("mine", "mine")]
    assert rows_of(connection, "SELECT count(*) FROM t WHERE n IS DISTINCT FROM a") == [(0,)]


def test_writers_at_work_meanwhile(database: str, connection: Session) -> None:
    plan = expand(connection, T, "INSERT INTO t SELECT n, 'x' || n FROM generate_series(1, 2000) n")
    done, errors = threading.Event(), []

    def write(name: str, column: str, seed: int) -> None:
        with session(database, name) as writer:
            number = 0
            while not done.is_set():
                number += 1
                try:
                    key = (number * 37 + seed) % 2000 + 1
                    writer.execute(f"UPDATE t SET {column} = %s WHERE id = %s", (f"{name} {number}", key))
                    writer.execute(f"INSERT INTO t (id, {column}) VALUES (%s, 'more')", (seed - number,))
                    writer.execute("DELETE FROM t WHERE id = %s", (seed - number + 3,))
                except psycopg.Error as error:
                    errors.append(error)

    writers = [
        threading.Thread(target=write, args=(name, column, seed))
        for name, column, seed in ((OLD, "a", -10_000), (NEW, "n", -5_000_000), ("psql", "a", -9_000_000))
    ]
    for writer in writers:
        writer.start()
    try:
        fill(database, plan)
    finally:
        done.set()
        for writer in writers:
            writer.join(20)
    assert errors == []
    assert measure_law(connection, plan.laws[0], State.EXPANDED).broken == 0
    assert rows_of(connection, "SELECT count(*) FROM t WHERE n IS NULL") == [(0,)]


# Columns, a query of a hundred rows with `n` from 1 to 100, and the key.
KEYS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "two columns": ("a bigint, b integer, PRIMARY KEY (b, a)", "n % 7, n", ("b", "a")),
    "text": ("a text PRIMARY KEY, b text", "CASE n WHEN 1 THEN '' ELSE md5(n::text) || ' %é' END, ''", ("a",)),
    "uuid": ("a uuid PRIMARY KEY, b text", "gen_random_uuid(), ''", ("a",)),
    "timestamp": ("a timestamptz PRIMARY KEY, b text", "now() + n * interval '1.000001 s', ''", ("a",)),
    "numeric": ("a numeric(20, 9) PRIMARY KEY, b text", "n / 7.0 - 5, ''", ("a",)),
    "char": ("a character(12) PRIMARY KEY, b text", "md5(n::text)::character(12), ''", ("a",)),
    "text and date": ("a date, b text, PRIMARY KEY (b, a)", "date '2020-01-01' + n, (n % 3)::text", ("b", "a")),
    "an enum": (
        "a mood, b integer, PRIMARY KEY (a, b)",
        "(ARRAY['sad', 'ok', 'glad'])[n % 3 + 1]::mood, n",
        ("a", "b"),
    ),
    "an array": ("a integer[] PRIMARY KEY, b text", "ARRAY[n % 4, n], ''", ("a",)),
}


@pytest.mark.parametrize("kind", KEYS)
def test_any_kind_of_key(database: str, connection: Session, kind: str) -> None:
    columns, rows, key = KEYS[kind]
    connection.execute("CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad')")
    ddl = f"CREATE TABLE t ({columns}, v text DEFAULT 'x')"
    plan = expand(
        connection,
        ddl,
        f"INSERT INTO t SELECT {rows} FROM generate_series(1, 100) n",
        RenameColumn(table="t", column="v", to="n"),
    )
    assert plan.backfills[0].key == key
    seen: list[int] = []
    fill(database, plan, lambda _what, done, _total: seen.append(done))
    assert seen == list(range(10, 101, 10))
    assert rows_of(connection, "SELECT count(*), count(n) FROM t") == [(100, 100)]


def test_a_batch_ends_with_the_greatest_of_its_keys_and_not_of_their_texts(database: str, connection: Session) -> None:
    plan = expand(connection, T, "INSERT INTO t SELECT n, 'x' FROM generate_series(-50, 49) n")
    seen: list[int] = []
    fill(database, plan, lambda _what, done, _total: seen.append(done))
    assert seen == list(range(10, 101, 10))
    assert record(database, plan)["cursor"] == ["49"]


@pytest.mark.parametrize("name", ["User Table", 'na"me', "order", "100%", "%s"])
def test_any_name(database: str, connection: Session, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    ddl = f'CREATE TABLE {quoted} ({quoted} bigint PRIMARY KEY, "v w" text)'
    rows = f"INSERT INTO {quoted} SELECT n, '100%' FROM generate_series(1, 25) n"
    up, down = """replace("v w", '%', '%%')""", """replace("n w", '%%', '%')"""
    split = SplitColumn(table=name, column="v w", into={"n w": "text"}, up={"n w": up}, down=down)
    plan = expand(connection, ddl, rows, split)
    fill(database, plan)
    assert rows_of(connection, f'SELECT DISTINCT "n w" FROM {quoted}') == [("100%%",)]
    assert measure_law(connection, plan.laws[0], State.EXPANDED).broken == 0


def test_the_trigger_stands_aside_for_its_own_backfill_alone(database: str, connection: Session) -> None:
    plan = expand(connection, T, HUNDRED)
    other = live_plan(connection, SetNotNull(table="t", column="note", up="'-'"), name="another")
    run_phase(connection, other.expand)
    with session(database, "parallelchange") as worker:
        worker.execute("SET track_functions = 'pl'")
        work = plan.backfills[0]
        run_backfill(worker, CHANGE, work, plan.base.tables[work.table], rows_per_second=None, progress=lambda *_: None)
        worker.execute("SELECT pg_stat_force_next_flush()")
        worker.execute("SELECT 1")
        calls = rows_of(worker, "SELECT funcname, calls FROM pg_stat_user_functions ORDER BY 1")
    assert calls == [(Trigger("another", TableName("public", "t"), ()).function, 100)]
    assert rows_of(connection, "SELECT DISTINCT note FROM t") == [("-",)]


def test_no_faster_than_the_limit(database: str, connection: Session) -> None:
    plan = expand(connection, T, HUNDRED)
    slept: list[float] = []
    fill(database, plan, rows_per_second=50, sleep=slept.append)
    # 100 rows at 50 a second are two seconds, less what the batches themselves took.
    assert 1.0 < sum(slept) <= 2.0
    assert len(slept) == 10


def test_no_limit_no_sleep(database: str, connection: Session) -> None:
    plan = expand(connection, T, HUNDRED)
    slept: list[float] = []
    fill(database, plan, sleep=slept.append)
    assert slept == []


def test_an_empty_table_is_finished_at_once(database: str, connection: Session) -> None:
    plan = expand(connection, T, "SELECT 1")
    told: list[Any] = []
    fill(database, plan, lambda *what: told.append(what))
    assert told == []
    found = record(database, plan)
    assert (found["cursor"], found["rows"], found["total"], found["finished"]) == (None, 0, 0, True)


def test_rows_that_come_in_front_of_the_cursor_are_the_triggers_care(database: str, connection: Session) -> None:
    plan = expand(connection, T, HUNDRED)

    def insert(_what: str, done: int, _total: int | None) -> None:
        if done == 50:
            connection.execute("INSERT INTO t SELECT -n, 'late' FROM generate_series(1, 5) n")

    fill(database, plan, insert)
    assert rows_of(connection, "SELECT count(*) FROM t WHERE n IS DISTINCT FROM a") == [(0,)]


def test_a_backfill_of_a_reverted_change_starts_anew(database: str, connection: Session) -> None:
    plan = expand(connection, T, HUNDRED)
    fill(database, plan)
    run_phase(connection, plan.revert)
    with closing(PostgresLedger(database, CHANGE)) as ledger:
        ledger.settle("revert", "done", reverted=True)
    run_phase(connection, plan.expand)
    fill(database, plan)
    assert rows_of(connection, "SELECT count(n) FROM t") == [(100,)]


@given(st.lists(st.floats(0, 1e4), max_size=60), st.integers(-5, 10**9))
def test_a_batch_keeps_its_bounds_whatever_it_took(seconds: list[float], limit: int) -> None:
    size = BatchSize(limit=limit)
    for took in seconds:
        before = size.rows
        size.took(took)
        assert 10 <= size.rows <= min(100_000, max(10, limit))
        assert size.rows <= before * 1.5
        if took > 1.0:
            assert size.rows <= max(10, before / 5)


def test_a_batch_comes_to_take_the_time_it_aims_at() -> None:
    size = BatchSize()
    for _ in range(50):
        size.took(size.rows / 20_000)  # a server that does 20 000 rows a second
    assert 3000 < size.rows < 5000
