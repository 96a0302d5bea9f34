"""Round trips on a real expanded table, of every kind of operation."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
import pytest
from helpers.changes import CASES, NEW, OLD, REQUIRED, live_plan, run_phase, session
from helpers.world import run_sql

from parallelchange.gates.roundtrip import judge
from parallelchange.local.roundtrip import round_trips
from parallelchange.model import GateResult, Verdict
from parallelchange.operations import ChangeType, Operation, RenameColumn, SetNotNull, SplitColumn
from parallelchange.plan import Plan

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN


def expanded(
    url: str,
    operation: Operation,
    *ddl: str,
    after: Sequence[str] = (),
    names: tuple[str | None, str | None] = (OLD, NEW),
) -> Plan:
    """A plan whose expand was run."""
    run_sql(url, *ddl)
    with session(url, "parallelchange") as connection:
        plan = live_plan(connection, operation, old=names[0], new=names[1])
        run_phase(connection, plan.expand)
        for statement in after:
            connection.execute(statement)
    return plan


def judged(url: str, plan: Plan) -> tuple[GateResult, GateResult]:
    found = round_trips(url, plan)
    return judge("v1", found["v1"]), judge("v2", found["v2"])


@pytest.mark.parametrize("name", [name for name in CASES if name != "split_column_required"])
@pytest.mark.parametrize("names", [(OLD, NEW), (None, NEW), (OLD, None), (None, None)])
def test_every_operation_passes(database: str, name: str, names: tuple[str | None, str | None]) -> None:
    case = CASES[name]
    plan = expanded(database, case.operation, case.ddl, names=names)
    before = run_sql(database, "SELECT oid, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
    for result in judged(database, plan):
        assert result.verdict is PASS, result.findings
        assert result.measured["rows"] > 10
    assert before == run_sql(database, "SELECT oid, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
    with session(database, "x") as connection:
        assert connection.execute(
            psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(case.base.name.name))
        ).fetchone() == (0,)


def test_what_up_loses_is_shown_at_its_smallest(database: str) -> None:
    plan = expanded(database, REQUIRED.operation, REQUIRED.ddl)
    old, new = judged(database, plan)
    assert old.verdict is FAIL
    message = old.findings[0].message
    assert message.startswith("v1 wrote (name ' ') by INSERT, and the law is broken"), message
    assert "there is name ' ', first_name '', last_name NULL" in message
    assert new.verdict is PASS, new.findings


def test_real_values_come_first(database: str) -> None:
    loses = SplitColumn(
        table="t", column="a", into={"b": "text"}, up={"b": "replace(a, 'odd one', 'even one')"}, down="b"
    )
    ddl = "CREATE DOMAIN ones AS text CHECK (value ~ '(one|e)$'); CREATE TABLE t (id bigint PRIMARY KEY, a ones)"
    rows = "INSERT INTO t SELECT g, 'odd one' FROM generate_series(1, 3) g"
    old, _ = judged(database, expanded(database, loses, ddl, rows))
    assert "v1 wrote (a 'odd one') by INSERT" in old.findings[0].message


KEYS = (
    "CREATE TABLE parent (id uuid PRIMARY KEY, kind text NOT NULL)",
    "CREATE DOMAIN number AS text CHECK (value ~ '^[1-9][0-9]{0,5}$')",
    "CREATE TYPE mood AS ENUM ('ok', 'sad')",
    "CREATE DOMAIN short AS varchar(5) CHECK (value <> 'never')",
    """CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, p uuid NOT NULL REFERENCES parent,
        email text NOT NULL, m mood NOT NULL, d short NOT NULL, n int NOT NULL CHECK (n > 0), tags text[] NOT NULL,
        twice int GENERATED ALWAYS AS (n * 2) STORED, a number)""",
    "CREATE UNIQUE INDEX ON t (lower(email))",
)
NUMBER = ChangeType(table="t", column="a", to="b", type="integer")


@pytest.mark.parametrize("rows", [0, 3])
def test_a_row_that_keys_and_checks_take(database: str, rows: int) -> None:
    """A domain's CHECK tells which values there can be; what it refuses is not held against `up`."""
    filled = [
        "INSERT INTO parent VALUES ('6f2cdb5e-7f0b-4b0e-9a51-3f5c9d1a0c01', 'x')",
        """INSERT INTO t (p, email, m, d, n, tags, a) SELECT id, 'a' || g, 'ok', 'd', g, '{}', g FROM parent,
            generate_series(1, 3) g""",
    ]
    plan = expanded(database, NUMBER, *KEYS, *(filled if rows else ()))
    for result in judged(database, plan):
        assert result.verdict is PASS, result.findings
        assert result.measured["rows"] > 0
    assert run_sql(database, "SELECT count(*) FROM t") == [(rows,)]
    assert run_sql(database, "SELECT count(*) FROM parent") == [(rows // 3,)]


def test_no_row_is_unknown_with_the_reason(database: str) -> None:
    ddl = "CREATE TABLE t (id bigint PRIMARY KEY, a text, b xml NOT NULL)"
    plan = expanded(database, RenameColumn(table="t", column="a", to="c"), ddl)
    for result in judged(database, plan):
        assert result.verdict is UNKNOWN
        assert "no row of it can be made up" in result.findings[0].message
    run_sql(database, "ALTER TABLE t ALTER b DROP NOT NULL, ADD CHECK (id < 0)")
    for result in judged(database, plan):
        assert result.verdict is UNKNOWN
        assert "violates check constraint" in result.findings[0].message


TRIGGER = (
    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {} END'; CREATE TRIGGER {} EXECUTE FUNCTION f()"
)


@pytest.mark.parametrize(
    ("breaks", "expected"),
    [
        ("ALTER TABLE t DISABLE TRIGGER USER", FAIL),
        ("ALTER TABLE t DISABLE TRIGGER {update}", FAIL),
        ("ALTER TABLE t DISABLE TRIGGER {insert}", FAIL),
        (TRIGGER.format("NEW.c := NULL; RETURN NEW;", "zzz BEFORE UPDATE ON t FOR EACH ROW"), FAIL),
        (TRIGGER.format("RETURN NULL;", "a BEFORE INSERT ON t FOR EACH ROW"), FAIL),
        (TRIGGER.format("NEW.note := 1; RETURN NEW;", "a BEFORE INSERT ON t FOR EACH ROW"), PASS),
    ],
)
def test_shapes_that_are_not_kept_in_step(database: str, breaks: str, expected: Verdict) -> None:
    rename = RenameColumn(table="t", column="a", to="c")
    plan = expanded(database, rename, "CREATE TABLE t (id bigint PRIMARY KEY, a text, note text)")
    insert, update = plan.expectations[0].triggers
    run_sql(database, breaks.replace("{insert}", insert).replace("{update}", update))
    for result in judged(database, plan):
        assert result.verdict is expected, result.findings


LOSSY = SplitColumn(
    table="t",
    column="a",
    into={"b": "text", "c": "text"},
    up={"b": "split_part(a, ' ', 1)", "c": "split_part(a, ' ', 2)"},
    down="b || ' ' || c",
)


@pytest.mark.parametrize(
    ("operation", "type_", "says"),
    [
        (ChangeType(table="t", column="a", to="b", type="integer"), "text", "can no longer write"),
        (ChangeType(table="t", column="a", to="b", type="integer"), "numeric", "the law is broken"),
        (ChangeType(table="t", column="a", to="b", type="numeric(10,2)"), "numeric", "the law is broken"),
        (ChangeType(table="t", column="a", to="b", type="varchar(10)"), "text", ""),
        (ChangeType(table="t", column="a", to="b", type="jsonb"), "json", "the law is broken"),
        (ChangeType(table="t", column="a", to="b", type="date"), "timestamptz", "the law is broken"),
        (ChangeType(table="t", column="a", to="b", type="real"), "double precision", ""),
        (SetNotNull(table="t", column="a", up="other"), "text", "can no longer write|the law is broken"),
        (LOSSY, "text", "the law is broken"),
    ],
    ids=str,
)  # fmt: skip
def test_values_that_do_not_come_back(database: str, operation: Operation, type_: str, says: str) -> None:
    ddl = f"CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a {type_}, other text)"
    old, _ = judged(database, expanded(database, operation, ddl))
    assert old.verdict is FAIL, old
    assert any(part in old.findings[0].message for part in says.split("|")), old.findings[0].message
