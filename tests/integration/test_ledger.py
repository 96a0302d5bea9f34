"""The ledger: one writer at a time, what was begun, and what was proven."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from helpers.changes import session
from helpers.repository import alembic, make_repository

from parallelchange.adapters.postgres import ledger as module
from parallelchange.adapters.postgres.fingerprint import fingerprint
from parallelchange.adapters.postgres.ledger import LEDGER_HEAD, PostgresLedger, ensure_ledger, migrations_path
from parallelchange.errors import Busy, Unavailable
from parallelchange.model import Evidence, EvidenceKey, Finding, GateResult, Severity, State, Verdict

CHANGE = "a-change"
FIRST_USE = """
import sys
from parallelchange.adapters.postgres.ledger import PostgresLedger
PostgresLedger(sys.argv[1], "c").open()
"""


@pytest.fixture
def ledger(database: str) -> Iterator[PostgresLedger]:
    with closing(PostgresLedger(database, CHANGE)) as ledger:
        ledger.open()
        yield ledger


@pytest.fixture
def second(ledger: PostgresLedger) -> Iterator[PostgresLedger]:
    """Another process at the same change."""
    with closing(PostgresLedger(ledger.url, CHANGE)) as second:
        yield second


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.1)


# Making it.


def test_the_head_is_the_newest_of_the_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_path()))
    assert ScriptDirectory.from_config(config).get_heads() == [LEDGER_HEAD]


def test_first_users_at_once_make_it_once(database: str) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", FIRST_USE, database], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert ends == [("", 0)] * 3
    with session(database, "test") as connection:
        assert connection.execute("SELECT version_num FROM parallelchange.alembic_version").fetchall() == [
            (LEDGER_HEAD,)
        ]
        assert connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)


def test_making_it_again_does_nothing(ledger: PostgresLedger) -> None:
    ledger.settle("set-weight", "done", weight=50)
    ledger.open()
    record = ledger.read()
    assert record is not None
    assert record.weight == 50


def test_it_leaves_the_apps_schema_and_alembic_alone(database: str, tmp_path: Path) -> None:
    make_repository(tmp_path, sql="CREATE TABLE t (id bigint PRIMARY KEY)")
    assert alembic(tmp_path, database, "upgrade", "head").returncode == 0
    with session(database, "test") as connection, closing(PostgresLedger(database, CHANGE)) as ledger:
        before = fingerprint(connection)
        ledger.open()
        assert fingerprint(connection) == before
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
    assert alembic(tmp_path, database, "upgrade", "head").returncode == 0


def test_one_of_a_newer_toolkit_is_refused(ledger: PostgresLedger) -> None:
    ledger.connection.execute("UPDATE parallelchange.alembic_version SET version_num = '9999'")
    with pytest.raises(Unavailable, match="newer"):
        ensure_ledger(ledger.connection, ledger.url)


def test_a_role_that_may_not_make_it_is_told_so(database: str) -> None:
    with session(database, "test") as connection:
        connection.execute("CREATE ROLE nobody_much LOGIN")
    try:
        url = database.replace("postgres:@", "nobody_much:@")
        assert url != database
        with closing(PostgresLedger(url, CHANGE)) as ledger, pytest.raises(Unavailable, match="denied") as caught:
            ledger.open()
        assert caught.value.hint is not None
        assert "CREATE" in caught.value.hint
    finally:
        with session(database, "test") as connection:
            connection.execute("DROP ROLE nobody_much")


def test_before_it_is_there_nothing_is_recorded(database: str) -> None:
    with closing(PostgresLedger(database, CHANGE)) as ledger:
        assert ledger.read() is None
        assert list(ledger.evidence()) == []
        ledger.open()
        assert ledger.read() == module.Record(CHANGE, 0, backfills={})
        with closing(PostgresLedger(database, "another")) as another:
            assert another.read() is None


# One at a time.


def test_while_one_is_at_work_a_second_is_turned_away(
    ledger: PostgresLedger, second: PostgresLedger, impatient: None
) -> None:
    with ledger.fenced():
        with pytest.raises(
            Busy, match=f"at work on {CHANGE}: pid {ledger.connection.info.backend_pid}, parallelchange"
        ):
            second.fenced().__enter__()
        with closing(PostgresLedger(ledger.url, "another")) as another:
            another.open()
            with another.fenced():
                pass
    with second.fenced():
        pass


def test_it_is_left_free_by_one_that_fails_and_by_one_that_dies(
    ledger: PostgresLedger, second: PostgresLedger, impatient: None
) -> None:
    with pytest.raises(ZeroDivisionError), ledger.fenced():
        raise ZeroDivisionError
    with second.fenced():
        pass
    dying = ledger.fenced()
    dying.__enter__()
    ledger.connection.close()
    with second.fenced():
        pass
    dying.__exit__(None, None, None)


def test_a_second_waits_for_one_that_is_just_ending(ledger: PostgresLedger, second: PostgresLedger) -> None:
    with ledger.fenced():
        pid = ledger.connection.info.backend_pid
        with session(ledger.url, "test") as connection:
            connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        with second.fenced():
            second.intend("backfill")
        ledger.connection.close()


def test_each_that_enters_has_a_greater_number(ledger: PostgresLedger, second: PostgresLedger) -> None:
    fences = []
    for one in (ledger, second, ledger):
        with one.fenced():
            record = one.read()
            assert record is not None
            fences.append(record.fence)
    assert fences == [1, 2, 3]


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda ledger: ledger.intend("set-weight", weight=500), id="intend"),
        pytest.param(lambda ledger: ledger.settle("set-weight", "done", weight=500), id="settle"),
        pytest.param(lambda ledger: ledger.add_evidence([proven()]), id="add_evidence"),
    ],
)
def test_one_that_was_taken_over_writes_no_more(ledger: PostgresLedger, second: PostgresLedger, write: Any) -> None:
    with ledger.fenced():
        # Its lock is lost, as it is when its session is, and another takes over.
        ledger.connection.execute("SELECT pg_advisory_unlock_all()")
        with second.fenced():
            second.settle("set-weight", "done", weight=250)
            with pytest.raises(Busy, match="has taken over"):
                write(ledger)
            record = second.read()
            assert record is not None
            assert (record.weight, record.pending) == (250, None)
            assert [(item["act"], item["outcome"]) for item in second.journal()] == [("set-weight", "done")]
            assert list(second.evidence()) == []


# What was begun, and what became of it.


def read(ledger: PostgresLedger) -> Any:
    record = ledger.read()
    assert record is not None
    return record


def test_an_intent_stands_until_it_is_settled(ledger: PostgresLedger, second: PostgresLedger) -> None:
    with ledger.fenced():
        ledger.intend("set-weight", weight=50, before=0)
        assert read(second).pending == {"act": "set-weight", "weight": 50, "before": 0}
        assert (read(second).weight, read(second).weight_since) == (None, None)
        ledger.settle("set-weight", "done", weight=50)
        assert (read(second).pending, read(second).weight) == (None, 50)
        assert read(second).weight_since is not None
    acts = [(item["act"], item["outcome"], item["detail"]) for item in ledger.journal()]
    assert acts == [
        ("set-weight", "intended", {"weight": 50, "before": 0}),
        ("set-weight", "done", {"weight": 50}),
    ]


def test_a_failure_changes_no_weight(ledger: PostgresLedger) -> None:
    ledger.settle("set-weight", "done", weight=50)
    since = read(ledger).weight_since
    ledger.intend("set-weight", weight=250)
    ledger.settle("set-weight", "void")
    assert (read(ledger).weight, read(ledger).weight_since, read(ledger).pending) == (50, since, None)


def test_setting_a_weight_again_starts_its_time_again(ledger: PostgresLedger) -> None:
    ledger.settle("set-weight", "done", weight=50)
    since = read(ledger).weight_since
    ledger.settle("set-weight", "done", weight=50)
    assert read(ledger).weight_since > since


def test_contract_and_abort_are_kept(ledger: PostgresLedger) -> None:
    ledger.settle("abort", "done", weight=0, aborted="too many failures")
    assert (read(ledger).aborted, read(ledger).weight) == ("too many failures", 0)
    ledger.settle("contract", "done", contracted=True)
    contracted_at = read(ledger).contracted_at
    ledger.settle("contract", "done", contracted=True)
    assert read(ledger).contracted_at == contracted_at is not None


def test_a_revert_forgets_the_backfill_of_its_change_alone(ledger: PostgresLedger) -> None:
    with closing(PostgresLedger(ledger.url, "another")) as another:
        another.open()
        for one in (ledger, another):
            one.connection.execute(
                "INSERT INTO parallelchange.backfill (change, pass, incarnation) VALUES (%s, 't:n', '1')", (one.change,)
            )
        ledger.settle("revert", "failed")
        assert list(read(ledger).backfills) == ["t:n"]
        ledger.settle("revert", "done", reverted=True)
        assert read(ledger).backfills == {}
        assert list(read(another).backfills) == ["t:n"]


def test_a_weight_that_is_no_weight_is_refused_whole(ledger: PostgresLedger) -> None:
    ledger.intend("set-weight", weight=1001)
    with pytest.raises(psycopg.errors.CheckViolation):
        ledger.settle("set-weight", "done", weight=1001)
    assert read(ledger).pending == {"act": "set-weight", "weight": 1001}
    assert len(ledger.journal()) == 1


# What was proven.


def proven(version: str = "v1", gate: str = "prepare", state: State = State.EXPANDED, **key: str) -> Evidence:
    finding = Finding("prepare.refused", Severity.WARNING, 'says "100%" é\n', "a.py:1", "do this")
    parts = {"build": "b", "fingerprint": "f", "statements": "s", "plan": "p", **key}
    result = GateResult(
        gate, Verdict.FAIL, (finding,), None if version == "*" else version, {"rows": 3, "of": [1, None]}
    )
    return Evidence(EvidenceKey(CHANGE, version, gate, **parts), result, time.time(), "run-1", state)


@pytest.mark.parametrize("version", ["v1", "*"])
def test_evidence_reads_back_as_it_was_measured(ledger: PostgresLedger, version: str) -> None:
    written = proven(version)
    ledger.add_evidence([written])
    (found,) = ledger.evidence()
    assert replace(found, measured_at=written.measured_at) == written
    assert abs(found.measured_at - written.measured_at) < 10


def test_the_newest_counts_for_each_gate_version_and_state(ledger: PostgresLedger) -> None:
    keys = [
        ("v1", "prepare", State.EXPANDED),
        ("v2", "prepare", State.EXPANDED),
        ("v1", "probe", State.EXPANDED),
        ("v1", "prepare", State.BASE),
        ("*", "laws", State.EXPANDED),
    ]
    for plan in ("first", "second", "third"):
        ledger.add_evidence([proven(*key, plan=plan) for key in keys])
    found = ledger.evidence()
    assert sorted((e.key.version, e.key.gate, e.state) for e in found) == sorted(keys)
    assert {e.key.plan for e in found} == {"third"}
    assert [e.measured_at for e in found] == sorted((e.measured_at for e in found), reverse=True)
    # Another build is not another proof: what was measured last is what is known.
    ledger.add_evidence([proven(*keys[0], build="another")])
    found = ledger.evidence()
    assert len(found) == len(keys)
    assert found[0].key.build == "another"


def test_evidence_of_another_change_is_not_ours(ledger: PostgresLedger) -> None:
    with closing(PostgresLedger(ledger.url, "another")) as another:
        another.open()
        ledger.add_evidence([proven()])
        assert list(another.evidence()) == []
