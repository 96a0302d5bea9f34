"""What executions say of a statement: gate `execute`, one case for each verdict and its reason."""

from __future__ import annotations

from typing import Any

import pytest

from parallelchange.gates import execute
from parallelchange.gates.execute import Executed, Outcome, PhaseRun
from parallelchange.model import GateResult, State, Verdict

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN
SQL = "UPDATE t SET a = $1"


def judged(now: tuple[Outcome, ...], before: tuple[Outcome, ...] | None, sql: str = SQL, cause: str = "") -> GateResult:
    works = Executed("0", "SELECT 1", "another test", (ONE,))
    run = (Executed("1", sql, "a test", now, cause), works)
    held = None if before is None else (Executed("1", sql, "a test", before), works)
    return execute.judge(PhaseRun("v1", State.EXPANDED, run, held, "app"))


ONE, FIVE, NONE = Outcome(rows=1), Outcome(rows=5), Outcome(rows=0, idle=True)
READS_NONE = Outcome(rows=0)
GONE = Outcome("column a does not exist", "42703")
LATE = Outcome(rows=1, late="violates foreign key")
DUPLICATE = Outcome("duplicate key", "23505")
TIMEOUT = Outcome("canceling statement due to statement timeout", "57014")
SKIPPED = Outcome(skipped="it cannot run inside a transaction")
EXEMPT = Outcome(exempt=True)
AS_RECORDED = Outcome("duplicate key", "23505", recorded="23505")
OTHERWISE = Outcome("null value", "23502", recorded="23505")
NOW_FINE = Outcome(rows=1, recorded="23505")


@pytest.mark.parametrize(
    ("now", "before", "verdict", "kind"),
    [
        ((ONE,), (ONE,), PASS, None),
        ((FIVE, ONE), (FIVE, ONE), PASS, None),
        # it did something else
        ((NONE,), (ONE,), FAIL, "changed"),
        ((READS_NONE,), (FIVE,), FAIL, "changed"),
        ((ONE, NONE), (ONE, FIVE), FAIL, "changed"),
        ((Outcome(rows=1, written=0),), (Outcome(rows=1, written=3),), FAIL, "changed"),
        ((Outcome(columns=("a text", "b text")),), (Outcome(columns=("a text",)),), FAIL, "changed"),
        ((Outcome(rows=1, answer="0"),), (Outcome(rows=1, answer="5"),), FAIL, "changed"),
        ((Outcome(rows=1, answer="4"),), (Outcome(rows=1, answer="5"),), UNKNOWN, "differs"),
        ((Outcome(rows=1, answer="5"),), (Outcome(rows=1, answer="5"),), PASS, None),
        ((ONE,), (FIVE,), UNKNOWN, "differs"),
        ((FIVE,), (READS_NONE,), UNKNOWN, "differs"),
        # constraints at the end of a transaction
        ((LATE,), (ONE,), FAIL, "refused"),
        ((LATE,), (LATE,), PASS, None),
        # what never worked is not the change's doing, and proves nothing
        ((GONE,), (GONE,), UNKNOWN, "unproven"),
        ((ONE,), (GONE,), UNKNOWN, "unproven"),
        ((NONE,), (NONE,), UNKNOWN, "unproven"),
        ((SKIPPED,), None, UNKNOWN, "unproven"),
        ((ONE,), (SKIPPED,), UNKNOWN, "unproven"),
        ((), (), UNKNOWN, "unproven"),
        # of the rows, of the moment
        ((DUPLICATE,), None, UNKNOWN, "unproven"),
        ((DUPLICATE,), (ONE,), FAIL, "refused"),
        ((TIMEOUT,), (ONE,), UNKNOWN, "unproven"),
        ((TIMEOUT, ONE), (ONE, ONE), PASS, None),
        # another number of sendings than before cannot be compared
        ((ONE, ONE), (ONE,), UNKNOWN, "unproven"),
        # no schema can touch it
        ((EXEMPT,), (EXEMPT,), PASS, None),
        # it failed when it was recorded
        ((AS_RECORDED,), None, PASS, None),
        ((AS_RECORDED,), (AS_RECORDED,), PASS, None),
        ((NOW_FINE,), (AS_RECORDED,), PASS, None),
        ((OTHERWISE,), (AS_RECORDED,), FAIL, "refused"),
        ((OTHERWISE,), (NOW_FINE,), UNKNOWN, "unproven"),
        ((OTHERWISE,), None, UNKNOWN, "unproven"),
        ((AS_RECORDED, ONE), (AS_RECORDED, ONE), PASS, None),
        ((AS_RECORDED, GONE), (AS_RECORDED, ONE), FAIL, "refused"),
    ],
)
def test_execute_by_outcome(now: Any, before: Any, verdict: Verdict, kind: str | None) -> None:
    result = judged(now, before)
    assert result.verdict is verdict, result.findings
    assert [finding.id for finding in result.findings] == ([f"execute.{kind}"] if kind else [])


def test_both_numbers_and_the_cause_are_told() -> None:
    (finding,) = judged((NONE,), (Outcome(rows=7),), cause="ALTER TABLE t ENABLE ROW LEVEL SECURITY").findings
    assert "7 rows before, none now" in finding.message
    assert finding.message.endswith("; since `ALTER TABLE t ENABLE ROW LEVEL SECURITY`")
    assert "v1" in finding.message
    assert finding.where == "v1: a test"
    (finding,) = judged((GONE,), (ONE,)).findings
    assert "column a does not exist (42703)" in finding.message


def test_a_read_of_the_catalogs_may_read_another_number_of_rows() -> None:
    for sql in (
        "SELECT attname FROM pg_attribute",
        "SELECT 1 FROM information_schema.columns",
        "SELECT a FROM x JOIN pg_class c ON true",
    ):
        assert judged((READS_NONE,), (FIVE,), sql).verdict is PASS
    assert judged((READS_NONE,), (FIVE,), "SELECT pg_sleep(1) FROM t").verdict is FAIL


def test_what_follows_from_a_failure_is_not_told_beside_it() -> None:
    run = (Executed("1", "INSERT", "", (GONE,)), Executed("2", "SELECT", "", (FIVE,)))
    before = (Executed("1", "INSERT", "", (ONE,)), Executed("2", "SELECT", "", (Outcome(rows=6),)))
    result = execute.judge(PhaseRun("v1", State.EXPANDED, run, before, "app"))
    assert [finding.id for finding in result.findings] == ["execute.refused"]
    assert execute.broken(PhaseRun("v1", State.EXPANDED, run, before)) == {"1": 0}


def test_a_statement_that_the_state_before_did_not_know_is_not_taken_for_proven() -> None:
    run = (Executed("1", SQL, "", (ONE,)),)
    assert execute.judge(PhaseRun("v1", State.EXPANDED, run, (), "app")).verdict is UNKNOWN


def test_without_a_role_nothing_shows_that_the_version_may() -> None:
    run = (Executed("1", "SELECT 1", "test_a", (Outcome(rows=1),)),)
    assert execute.judge(PhaseRun("v1", State.BASE, run, None, "app")).verdict is PASS
    result = execute.judge(PhaseRun("v1", State.BASE, run))
    assert (result.verdict, [f.id for f in result.findings]) == (UNKNOWN, ["execute.role"])


@pytest.mark.parametrize("now", [(EXEMPT,), (AS_RECORDED,), (NOW_FINE,), (EXEMPT, AS_RECORDED)])
def test_a_corpus_of_which_nothing_was_seen_working_proves_nothing(now: Any) -> None:
    """Such as one that was recorded where each statement failed: with the same errors everywhere."""
    run = tuple(Executed(str(at), SQL, "a test", (outcome,)) for at, outcome in enumerate(now))
    for before in (None, run):
        result = execute.judge(PhaseRun("v1", State.EXPANDED, run, before, "app"))
        assert (result.verdict, [f.id for f in result.findings]) == (UNKNOWN, ["execute.none"])
