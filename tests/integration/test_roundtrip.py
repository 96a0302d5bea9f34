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
from parallelchange.operations import ChangeType, Operation, SetNotNull, SplitColumn
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
        assert result.measured["rows"] > 30
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
    assert message.startswith("v1: v1 wrote (name ' ') by INSERT, and the law is broken"), message
    assert new.verdict in (PASS, FAIL)


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
