"""A phase waits for its locks in short tries, and gives up with nothing changed."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from parallelchange.adapters.planning import load_plan
from parallelchange.adapters.postgres.database import PostgresDatabase
from parallelchange.adapters.postgres.revisions import Revisions
from parallelchange.errors import Blocked, Busy
from parallelchange.local.shop import example_path
from parallelchange.model import Phase, State
from parallelchange.plan import Plan, state_of

CHANGE = example_path() / "changes" / "split-customer-name.yaml"
INI = example_path() / "alembic.ini"


@pytest.fixture
def plan(database: str) -> Plan:
    found = load_plan(CHANGE)
    Revisions(database, found, INI).to_base()
    return found


def state(database: PostgresDatabase) -> State:
    return state_of(database.plan, database.catalog())[0]


def test_it_waits_out_a_long_transaction_and_holds_up_nobody_for_long(database: str, plan: Plan) -> None:
    held = PostgresDatabase(database, plan, INI)
    waits: list[float] = []
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM customers")

        def write() -> None:
            with psycopg.connect(database, autocommit=True) as writer:
                give_up = time.monotonic() + 2.0
                while time.monotonic() < give_up:
                    began = time.monotonic()
                    writer.execute("INSERT INTO customers (name, email) VALUES ('a b', 'e')")
                    waits.append(time.monotonic() - began)
                    time.sleep(0.02)
            reader.rollback()  # the long transaction ends

        thread = threading.Thread(target=write)
        thread.start()
        applied = held.apply(Phase.EXPAND)
        thread.join()
    assert applied.attempts > 1
    assert state(held) is State.EXPANDED
    # Writers wait behind a queued ACCESS EXCLUSIVE lock for one lock_timeout at most, with room for a slow machine.
    assert max(waits) < 5
    assert 0 < applied.exclusive_seconds < applied.seconds
    held.close()


def test_it_gives_up_with_nothing_changed(database: str, plan: Plan) -> None:
    stuck = PostgresDatabase(database, plan, INI, patience=1.0)
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM customers")
        with pytest.raises(Busy, match="nothing was changed") as caught:
            stuck.apply(Phase.EXPAND)
        assert "customers" in caught.value.message
        assert caught.value.hint
    assert state(stuck) is State.BASE
    stuck.close()


def test_a_refusal_before_the_commit_undoes_the_phase(database: str, plan: Plan) -> None:
    refusing = PostgresDatabase(database, plan, INI)
    seen: list[State] = []

    def refuse(inside: object) -> None:
        assert isinstance(inside, PostgresDatabase)
        seen.append(state(inside))
        raise Blocked("not now")

    with pytest.raises(Blocked):
        refusing.apply(Phase.EXPAND, last_check=refuse)
    assert seen == [State.EXPANDED], "the last check sees what is about to be committed"
    assert state(refusing) is State.BASE
    refusing.close()


def test_no_write_is_missed_while_expand_runs(database: str, plan: Plan) -> None:
    """Writers run all through it; every row written after the columns came has both shapes."""
    expanding = PostgresDatabase(database, plan, INI)
    stop, errors = threading.Event(), []

    def write(number: int) -> None:
        with psycopg.connect(database, autocommit=True, application_name="shop-v1") as writer:
            count = 0
            while not stop.is_set():
                count += 1
                try:
                    writer.execute("INSERT INTO customers (name, email) VALUES (%s, %s)", (f"w{number} {count}", "e"))
                    writer.execute(
                        "UPDATE customers SET name = name || ' x' WHERE email = 'e' AND id %% 7 = %s", (number,)
                    )
                except psycopg.Error as error:
                    errors.append(str(error))

    threads = [threading.Thread(target=write, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            time.sleep(0.2)
            with psycopg.connect(database, autocommit=True) as session:
                before = session.execute("SELECT coalesce(max(id), 0) FROM customers").fetchone()
            expanding.apply(Phase.EXPAND)
            with psycopg.connect(database, autocommit=True) as session:
                after = session.execute("SELECT max(id) FROM customers").fetchone()
            time.sleep(0.2)
            with psycopg.connect(database, autocommit=True) as session:
                odd = session.execute(
                    "SELECT count(*) FROM customers WHERE id > %s AND (name IS DISTINCT FROM"
                    " first_name || coalesce(' ' || last_name, ''))", after,
                ).fetchone()  # fmt: skip
            assert odd == (0,), before
            expanding.revert()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        expanding.close()
    assert errors == []
