"""Each gate's judgement: what passes, what fails, and that nothing passes on nothing."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelchange.calls import Stillness
from parallelchange.cli.gate import _write_junit
from parallelchange.gates import (
    EVIDENCE,
    GATES,
    Act,
    backfill,
    copies,
    drained,
    execute,
    guarding,
    laws,
    metrics,
    plan,
    prepare,
    probe,
    rehearsal,
    roundtrip,
    schema,
    shape,
    soak,
    versions,
)
from parallelchange.gates.execute import Executed, Outcome, PhaseRun
from parallelchange.gates.roundtrip import RoundTripFact
from parallelchange.model import FULL, Finding, GateResult, Severity, State, Verdict
from parallelchange.rollout.decide import Decision, Kind
from parallelchange.sessions import Connected, Identity, Prepared, Session

PASS, FAIL, UNKNOWN = Verdict
V1, V2 = Identity("v1", "shop-v1", None), Identity("v2", "shop-v2", None)


def says(result: GateResult, verdict: Verdict, *kinds: str) -> None:
    """The verdict, its gate, and exactly these kinds of findings."""
    assert result.verdict is verdict, result
    assert [finding.id for finding in result.findings] == [f"{result.gate}.{kind}" for kind in kinds]
    for finding in result.findings:
        assert finding.message
        assert finding.remedy
    if verdict is not PASS:
        assert result.findings


# The gates as they tell of themselves.


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_a_gate_tells_all_of_itself(gate: Any) -> None:
    for field in fields(gate):
        assert getattr(gate, field.name), field.name
    assert GATES[gate.id] is gate
    assert gate.what != gate.why != gate.example


def test_the_acts_that_move_something_are_guarded() -> None:
    assert set(guarding(Act.SET_WEIGHT)) == set(GATES) - {"drained"}
    assert set(guarding(Act.CONTRACT)) == set(GATES) - {"routing"}
    for act in (Act.EXPAND, Act.BACKFILL, Act.RETIRE, Act.REVERT):
        assert "schema" in guarding(act)
    assert guarding(Act.ABORT) == ()
    assert set(EVIDENCE) < set(GATES)


# Nothing is not enough.


@pytest.mark.parametrize(
    "result",
    [
        prepare.judge("v1", None),
        prepare.judge("v1", []),
        shape.judge("v1", None),
        shape.judge("v1", []),
        plan.judge("v1", None),
        plan.judge("v1", []),
        laws.judge([]),
        backfill.judge([]),
        execute.judge(PhaseRun("v1", State.EXPANDED, ())),
        roundtrip.judge("v1", ()),
        probe.judge(probe.ProbeFact("v1", declared=True, ok=None, detail="no copy")),
        copies.judge(copies.CopiesFact("v1", None, None)),
        metrics.judge(metrics.MetricsFact("v1", 50, None, None, None, 0.0, 20, None, None, "", ""), "v1"),
        soak.judge(soak.SoakFact(50, None, 60.0, settled=True)),
        drained.judge(
            drained.DrainedFact(
                "v1", None, None, 30.0, None, None, False, False, wanted=None, prepared=None, replays=(), calls=None
            )
        ),
        versions.judge(versions.VersionsFact(V1, V2, (), None, None), Act.SET_WEIGHT),
        versions.judge(versions.VersionsFact(V1, V2, (), Connected(()), None), Act.SET_WEIGHT),
    ],
    ids=lambda result: result.gate,
)
def test_no_gate_passes_on_no_data(result: GateResult) -> None:
    assert result.verdict is UNKNOWN
    assert result.findings


# schema

ACTS_AND_STATES = list(product((Act.EXPAND, Act.BACKFILL, Act.SET_WEIGHT, Act.CONTRACT), State))


@pytest.mark.parametrize(("act", "state"), ACTS_AND_STATES)
def test_schema_passes_in_the_state_the_act_starts_from_alone(act: Act, state: State) -> None:
    result = schema.judge(schema.SchemaFacts(state, (), (), "f"), act)
    wanted = State.BASE if act is Act.EXPAND else State.EXPANDED
    says(result, *((PASS,) if state is wanted else (FAIL, "state")))


def test_schema_fails_on_what_is_wrong_with_the_revisions() -> None:
    result = schema.judge(schema.SchemaFacts(State.EXPANDED, (), ("edited", "missing"), "f"), Act.SET_WEIGHT)
    says(result, FAIL, "revision", "revision")


def test_schema_tells_what_is_half_way() -> None:
    result = schema.judge(schema.SchemaFacts(State.PARTIAL, ("a is there", "b is missing"), (), "f"), Act.CONTRACT)
    assert "a is there; b is missing" in result.findings[0].message


# prepare and shape

FINE = prepare.StatementFact("1", "SELECT a FROM t", "test_a", ("a text",), None, ("a text",))


@pytest.mark.parametrize(
    ("fact", "prepared", "shaped"),
    [
        (FINE, (PASS,), (PASS,)),
        (replace(FINE, recorded=(), found=()), (PASS,), (PASS,)),
        (replace(FINE, error="no such column", found=None), (FAIL, "refused"), (PASS,)),
        (replace(FINE, found=("a text", "b text")), (PASS,), (FAIL, "changed")),
        (replace(FINE, found=("a integer",)), (PASS,), (FAIL, "changed")),
        (replace(FINE, found=()), (PASS,), (FAIL, "changed")),
        (replace(FINE, found=None), (PASS,), (UNKNOWN, "untold")),
        (replace(FINE, found=None, unasked="it writes"), (PASS,), (PASS,)),
    ],
)
def test_prepare_and_shape(fact: Any, prepared: tuple[Any, ...], shaped: tuple[Any, ...]) -> None:
    for gate, expected in ((prepare, prepared), (shape, shaped)):
        says(gate.judge("v1", [fact]), *expected)
        beside = gate.judge("v1", [FINE, fact, FINE])
        assert (beside.verdict, beside.version, beside.measured["statements"]) == (expected[0], "v1", 3)


def test_one_failure_outweighs_what_is_unknown() -> None:
    assert shape.judge("v1", [replace(FINE, found=None), replace(FINE, found=())]).verdict is FAIL


def test_the_ddl_that_caused_it_is_told() -> None:
    fact = replace(FINE, error="no such column", cause="ALTER TABLE t DROP COLUMN a")
    assert "since `ALTER TABLE t DROP COLUMN a`" in prepare.judge("v1", [fact]).findings[0].message


# laws


@pytest.mark.parametrize(
    ("broken", "error", "expected"),
    [(0, None, (PASS,)), (1, None, (FAIL, "broken")), (None, "timeout", (UNKNOWN, "untold"))],
)
def test_laws(broken: int | None, error: str | None, expected: tuple[Any, ...]) -> None:
    fact = laws.LawFact("t.a", "a is a", "t", 10, broken, ({"id": 1},), error)
    says(laws.judge([fact]), *expected)


def test_laws_tell_how_many_rows_and_which() -> None:
    fact = laws.LawFact("t.a", "a is kept", "t", 10, 3, [{"id": n} for n in range(5)], foretold=True)
    (finding,) = laws.judge([fact]).findings
    assert "3 of 10 rows would break" in finding.message
    assert "{'id': 2}" in finding.message
    assert "{'id': 3}" not in finding.message


def test_laws_hold_on_an_empty_table() -> None:
    assert laws.judge([laws.LawFact("t.a", "a is kept", "t", 0, 0)]).verdict is PASS


def test_laws_a_broken_one_outweighs_one_untold() -> None:
    facts = [laws.LawFact("a", "", "t", 0, None, error="x"), laws.LawFact("b", "", "t", 1, 1)]
    says(laws.judge(facts), FAIL, "broken", "untold")


# backfill


@pytest.mark.parametrize(
    ("rows", "finished", "expected"),
    [
        (100, True, (PASS,)),
        (0, True, (PASS,)),
        (40, False, (FAIL, "unfinished")),
        (None, False, (FAIL, "not-begun")),
    ],
)
def test_backfill(rows: int | None, finished: bool, expected: tuple[Any, ...]) -> None:
    fact = backfill.BackfillFact("t:n", rows, finished)
    says(backfill.judge([fact]), *expected)
    assert backfill.judge([backfill.BackfillFact("t:m", 1, finished=True), fact]).verdict is expected[0]


# probe


@pytest.mark.parametrize(
    ("declared", "ok", "expected"),
    [
        (True, True, (PASS,)),
        (True, False, (FAIL, "failed")),
        (True, None, (UNKNOWN, "untold")),
        (False, None, (PASS, "waived")),
    ],
)
def test_probe(declared: bool, ok: bool | None, expected: tuple[Any, ...]) -> None:
    says(probe.judge(probe.ProbeFact("v1", declared, ok, "503")), *expected)


# copies


@pytest.mark.parametrize(
    ("ready", "build", "expected"),
    [
        (1, "b", (PASS,)),
        (0, "b", (FAIL, "none")),
        (None, "b", (UNKNOWN, "untold")),
        (2, None, (UNKNOWN, "build")),
        (2, "", (UNKNOWN, "build")),
    ],
)
def test_copies(ready: int | None, build: str | None, expected: tuple[Any, ...]) -> None:
    says(copies.judge(copies.CopiesFact("v1", ready, build)), *expected)


# metrics

GOOD = metrics.MetricsFact(
    "v1",
    50,
    100,
    1.0,
    12.0,
    1.0,
    20,
    success_ok=True,
    latency_ok=True,
    success_bound=">= 99%",
    latency_bound="<= 500ms",
)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, (PASS,)),
        ({"requests": 20}, (PASS,)),
        ({"requests": 19}, (UNKNOWN, "few")),
        (
            {"requests": 0, "success_rate": None, "p99_ms": None, "success_ok": None, "latency_ok": None},
            (UNKNOWN, "few"),
        ),
        ({"requests": None}, (UNKNOWN, "no-data")),
        ({"age": 15.1}, (UNKNOWN, "no-data")),
        ({"success_ok": False, "success_rate": 0.5}, (FAIL, "success-rate")),
        ({"latency_ok": False, "p99_ms": 900.0}, (FAIL, "latency")),
        ({"success_ok": False, "latency_ok": False}, (FAIL, "success-rate", "latency")),
        ({"latency_ok": None, "p99_ms": None}, (UNKNOWN, "untold")),
        # Old or few figures prove neither good nor bad.
        ({"success_ok": False, "age": 60.0}, (UNKNOWN, "no-data")),
        ({"success_ok": False, "requests": 3}, (UNKNOWN, "few")),
    ],
)
def test_metrics(change: dict[str, Any], expected: tuple[Any, ...]) -> None:
    says(metrics.judge(replace(GOOD, **change), "v1"), *expected)


def test_metrics_waived_is_told() -> None:
    result = metrics.judge(None, "v1")
    says(result, PASS, "waived")
    assert result.findings[0].severity is Severity.INFO


# soak


@pytest.mark.parametrize(
    ("weight", "stood", "expected"),
    [
        (0, None, (PASS,)),
        (0, 0.0, (PASS,)),
        (50, None, (UNKNOWN, "untold")),
        (50, 59.9, (FAIL, "short")),
        (50, 60.0, (PASS,)),
        (FULL, 0.0, (FAIL, "short")),
    ],
)
def test_soak(weight: int, stood: float | None, expected: tuple[Any, ...]) -> None:
    says(soak.judge(soak.SoakFact(weight, stood, 60.0, settled=True)), *expected)


def test_soak_counts_only_while_the_mesh_follows() -> None:
    says(soak.judge(soak.SoakFact(50, 100.0, 60.0, settled=False)), UNKNOWN, "mesh")


# drained

STILL = Stillness(2, seconds=30.0, matched=1)
GONE = drained.DrainedFact(
    "v1", FULL, 30.0, 30.0, 0, (), seen=True, settled=True, wanted=0, prepared=(), replays=(), calls=STILL
)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, (PASS, "calls")),
        ({"weight": 999}, (FAIL, "weight", "calls")),
        ({"weight": 0}, (FAIL, "weight", "calls")),
        ({"weight": None}, (UNKNOWN, "weight", "calls")),
        ({"stood": 29.9}, (FAIL, "since", "calls")),
        ({"stood": None}, (UNKNOWN, "since", "calls")),
        ({"ready": 1}, (FAIL, "copies", "calls")),
        ({"ready": None}, (UNKNOWN, "copies", "calls")),
        ({"sessions": ("pid 1",)}, (FAIL, "sessions", "calls")),
        ({"sessions": None}, (UNKNOWN, "sessions", "calls")),
        ({"ready": 2, "sessions": None}, (FAIL, "copies", "sessions", "calls")),
        ({"seen": False}, (UNKNOWN, "never-seen", "calls")),
        ({"settled": False}, (UNKNOWN, "mesh", "calls")),
        # A Deployment whose pods crash has none that is ready, until one lives for long enough to write.
        ({"wanted": 1}, (FAIL, "wanted", "calls")),
        ({"wanted": None}, (UNKNOWN, "wanted", "calls")),
        ({"prepared": (Prepared("x", "app", 9.0),)}, (FAIL, "prepared", "calls")),
        ({"prepared": None}, (UNKNOWN, "prepared", "calls")),
        ({"replays": ("logical slot s",)}, (PASS, "calls", "replays")),
        ({"calls": None}, (UNKNOWN, "calls")),
        ({"calls": Stillness(2, grew=("1 call of x",))}, (FAIL, "calls", "calls")),
        ({"calls": Stillness(2, seconds=29.9)}, (UNKNOWN, "young", "calls")),
        ({"calls": Stillness(2)}, (UNKNOWN, "young", "calls")),
        ({"calls": Stillness(2, "they were reset")}, (UNKNOWN, "uncounted")),
        ({"calls": Stillness(None, "there is no extension")}, (PASS, "calls")),
    ],
)
def test_drained(change: dict[str, Any], expected: tuple[Any, ...]) -> None:
    says(drained.judge(replace(GONE, **change)), *expected)


# versions


def session(name: str, **parts: Any) -> Session:
    return Session(1, name, **{"role": "app", **parts})


def live(
    *sessions: Session, act: Act = Act.SET_WEIGHT, others: tuple[str, ...] | None = (), **parts: Any
) -> GateResult:
    fact = versions.VersionsFact(V1, V2, (), Connected(sessions), others)
    return versions.judge(replace(fact, **parts), act)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (live(), (PASS,)),
        (live(session("shop-v1"), session("shop-v2"), session("parallelchange", ours=True)), (PASS,)),
        (live(session("shop-v1"), others=("pod x",)), (FAIL, "third")),
        (live(session("shop-v1"), others=None), (UNKNOWN, "copies")),
        (live(others=None, connected=None), (UNKNOWN, "copies", "unseen")),
        (live(others=("pod x",), connected=None), (FAIL, "third", "unseen")),
        (live(session("shop-v0"), session(""), session("")), (FAIL, "stranger", "stranger")),
        (live(session("shop-v0", kind=None)), (UNKNOWN, "untold")),
        (live(session("shop-v0", kind=None), session("x")), (FAIL, "stranger", "untold")),
        (live(*(session(str(number)) for number in range(13))), (FAIL, *["stranger"] * 11)),
        (live(session("s", kind="walsender"), session("s", kind="walsender")), (PASS, "replication")),
        (live(session("", kind="pg_cron launcher")), (PASS, "worker")),
        (live(session("shop-v2")), (PASS,)),
        # It has no traffic and harms itself alone; expand does not wait for it.
        (live(session("shop-v2"), act=Act.EXPAND), (PASS, "early")),
        (live(session("shop-v1"), old=replace(V1, role="other")), (FAIL, "stranger")),
        (live(session("x"), old=replace(V1, application_name=None, role="app")), (PASS,)),
        (live(session("x"), old=replace(V1, application_name=None)), (UNKNOWN, "untold")),
    ],
)
def test_versions(result: GateResult, expected: tuple[Any, ...]) -> None:
    says(result, *expected)


@given(
    st.none() | st.integers(998, FULL),
    st.none() | st.floats(29, 31),
    st.none() | st.integers(0, 1),
    st.none() | st.lists(st.text(max_size=3), max_size=1).map(tuple),
    st.booleans(),
    st.booleans(),
)
def test_drained_passes_in_one_case_alone(
    weight: int | None,
    stood: float | None,
    ready: int | None,
    sessions: tuple[str, ...] | None,
    seen: bool,
    settled: bool,
) -> None:
    changes = {"weight": weight, "stood": stood, "ready": ready, "sessions": sessions, "seen": seen}
    result = drained.judge(replace(GONE, **changes, settled=settled))
    gone = weight == FULL and stood is not None and stood >= 30.0 and ready == 0 and sessions == ()
    assert (result.verdict is PASS) == (gone and seen and settled)


# execute

WORKS, BREAKS, OF_ROWS = Outcome(), Outcome("column is missing", "42703"), Outcome("duplicate key", "23505")


def rehearsed(*outcomes: Outcome, before: tuple[Outcome, ...] | None = None) -> GateResult:
    sql = "INSERT INTO t VALUES ($1)"
    return execute.judge(
        PhaseRun(
            "v1",
            State.EXPANDED,
            (Executed("1", sql, "test_a", outcomes),),
            None if before is None else (Executed("1", sql, "test_a", before),),
            "app",
        )
    )


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        ((WORKS,), None, (PASS,)),
        ((WORKS,), (WORKS,), (PASS,)),
        ((BREAKS,), None, (FAIL, "refused")),
        ((BREAKS,), (WORKS,), (FAIL, "refused")),
        ((OF_ROWS,), (WORKS,), (FAIL, "refused")),
        # What never worked proves nothing, and is not held against the change.
        ((BREAKS,), (BREAKS,), (UNKNOWN, "unproven")),
        ((OF_ROWS,), None, (UNKNOWN, "unproven")),
        ((), None, (UNKNOWN, "unproven")),
        ((OF_ROWS, WORKS), None, (PASS,)),
        ((WORKS, BREAKS), (WORKS, WORKS), (FAIL, "refused")),
        ((BREAKS, WORKS), (BREAKS, WORKS), (PASS,)),
    ],
)
def test_execute(now: tuple[Outcome, ...], before: tuple[Outcome, ...] | None, expected: tuple[Any, ...]) -> None:
    says(rehearsed(*now, before=before), *expected)


def test_what_fails_before_any_change_is_not_laid_at_its_door() -> None:
    run = PhaseRun("v1", State.BASE, (Executed("1", "COPY t FROM STDIN", "", (BREAKS,)),), None, "app")
    (finding,) = execute.judge(run).findings
    assert "of v1 fails before any change" in finding.message
    assert "not the change's doing: give the role app what it needs" in finding.remedy


def test_what_the_role_lacks_is_to_be_granted() -> None:
    result = rehearsed(Outcome("permission denied for table t", "42501"), before=(WORKS,))
    says(result, FAIL, "refused")
    assert "grant the role app what it lacks on the whole table" in result.findings[0].remedy


def test_rehearsal_fails_on_what_kept_a_state_from_being_reached() -> None:
    finding = rehearsal.GATE.finding("step", "contract cannot be reached")
    says(rehearsal.judge(State.CONTRACTED, (finding,)), FAIL, "step")
    says(rehearsal.judge(State.CONTRACTED, ()), PASS)


# plan

BY_INDEX = prepare.PlanFact("Index Scan using t_a on t", ("t_a",), (), large=True, existing=frozenset({"t_a", "t_b"}))
BY_SCAN = prepare.PlanFact("Seq Scan on t", (), ("t",), large=True, existing=frozenset({"t_a", "t_b"}))
PLANNED = replace(FINE, plan=BY_INDEX)


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        (PLANNED, (PASS,)),
        (replace(PLANNED, plan=BY_SCAN), (PASS,)),
        (replace(PLANNED, plan=prepare.PlanFact(error="permission denied")), (FAIL, "refused")),
        (replace(PLANNED, plan=prepare.PlanFact(error="denied", untold="denied to us")), (UNKNOWN, "untold")),
        (replace(PLANNED, plan=prepare.PlanFact(error="no NULL", unasked="no NULL")), (PASS,)),
        (replace(PLANNED, plan=None), (UNKNOWN, "untold")),
        (replace(PLANNED, plan=None, error="no such column"), (PASS,)),
        (replace(PLANNED, plan=None, unasked="it writes"), (PASS,)),
    ],
)
def test_plan(fact: Any, expected: tuple[Any, ...]) -> None:
    says(plan.judge("v1", [fact]), *expected)
    beside = plan.judge("v1", [PLANNED, fact, PLANNED])
    assert (beside.verdict, beside.version, beside.measured["statements"]) == (expected[0], "v1", 3)


def test_plan_one_failure_outweighs_what_is_unknown() -> None:
    refused = replace(PLANNED, plan=prepare.PlanFact(error="x"), cause="REVOKE ALL ON t FROM app")
    result = plan.judge("v1", [replace(PLANNED, plan=None), refused])
    says(result, FAIL, "refused", "untold")
    assert "since `REVOKE ALL ON t FROM app`" in result.findings[0].message


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (BY_INDEX, BY_INDEX, ()),
        (BY_SCAN, BY_SCAN, ()),
        (BY_INDEX, BY_SCAN, ()),
        (BY_SCAN, None, ()),
        (BY_SCAN, BY_INDEX, ("scan",)),
        (replace(BY_SCAN, existing=frozenset({"t_b"})), BY_INDEX, ("scan", "index")),
        (replace(BY_SCAN, scans=(), existing=frozenset()), BY_INDEX, ("index",)),
        (replace(BY_INDEX, indexes=("t_b",)), BY_INDEX, ()),
        (replace(BY_SCAN, scans=("t", "u")), BY_SCAN, ("scan",)),
    ],
)
def test_plan_what_got_worse_is_told_and_passes(now: Any, before: Any, expected: tuple[str, ...]) -> None:
    result = plan.judge("v1", [replace(PLANNED, plan=now)], {FINE.id: before} if before else {})
    says(result, PASS, *expected)
    for finding in result.findings:
        assert finding.severity is Severity.WARNING
        assert f"before: {before.text}" in finding.message
        assert f"now: {now.text}" in finding.message


def test_plan_keeps_texts_of_large_tables_alone() -> None:
    small = prepare.PlanFact("Index Scan using s_pkey on s", ("s_pkey",))
    whole = prepare.PlanFact("Seq Scan on s")
    facts = [replace(FINE, id=str(n), plan=item) for n, item in enumerate((BY_INDEX, BY_SCAN, small, whole, None))]
    kept = plan.keep(plan.plans(facts))
    assert list(kept) == ["0", "1", "2"]
    again = plan.kept(json.loads(json.dumps({"plans": kept})))
    assert (again["0"].text, again["0"].indexes) == (BY_INDEX.text, ("t_a",))
    assert again["1"].scans == ("t",)
    assert again["2"].text == "by s_pkey"
    assert plan.kept({}) == {}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ((RoundTripFact("t", 10),), (PASS,)),
        ((RoundTripFact("t", 10, 3), RoundTripFact("u", 1)), (PASS,)),
        ((RoundTripFact("t", 10, broken="v1 wrote (a 'x') by INSERT, and the law is broken"),), (FAIL, "broken")),
        ((RoundTripFact("t", 10, broken="x"), RoundTripFact("u", 0)), (FAIL, "broken", "none")),
        ((RoundTripFact("t", 0, 90, why="no parent"),), (UNKNOWN, "none")),
        ((RoundTripFact("t", 10), RoundTripFact("u", 0)), (UNKNOWN, "none")),
        ((RoundTripFact("t", 10, why="the trial broke off"),), (UNKNOWN, "untold")),
        ((), (UNKNOWN, "none")),
    ],
)
def test_roundtrip(facts: tuple[RoundTripFact, ...], expected: tuple[Any, ...]) -> None:
    says(roundtrip.judge("v1", facts), *expected)


def test_roundtrip_tells_what_the_new_version_cannot_write_yet() -> None:
    result = roundtrip.judge(
        "v2", (RoundTripFact("t", 10, 1, untaken="v2 cannot write (b NULL) while both shapes live"),)
    )
    says(result, PASS, "untaken")
    assert result.findings[0].severity is Severity.INFO


def test_a_report_holds_only_what_xml_may_hold(tmp_path: Path) -> None:
    """A message quotes statements, and they hold what people sent."""
    refused = GateResult("prepare", Verdict.FAIL, (Finding("prepare.refused", Severity.ERROR, "SELECT '\x01\ud800'"),))
    decision = Decision(Kind.BLOCKED, "prepare: SELECT '\x01'", results=(refused,))
    _write_junit(tmp_path / "gate.xml", "a-change", decision, passed=False)
    failures = list(ET.parse(tmp_path / "gate.xml").getroot().iter("failure"))
    assert [failure.text for failure in failures] == [
        "SELECT '\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}'",
        None,
    ]
