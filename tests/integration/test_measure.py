"""What `verify` measures of the recorded statements, from before expand to after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.observations import NOW, evidence
from helpers.world import V1, V2, make_scene, recorded, scene_of, walk

from parallelchange.cli.show import show_evidence
from parallelchange.gates import plan
from parallelchange.gates.base import Act
from parallelchange.model import Evidence, Place, State, Verdict
from parallelchange.rollout.decide import Kind
from parallelchange.rollout.matrix import matrix_now
from parallelchange.rollout.measure import measure, plans_before
from parallelchange.rollout.observe import Observation, observe
from parallelchange.rollout.run import look, rollout

LARGE = (
    "CREATE TABLE t (id bigint PRIMARY KEY, a text, ref text)",
    "CREATE INDEX t_ref ON t (ref)",
    "INSERT INTO t SELECT g, 'x', 'r' || g FROM generate_series(1, 20000) g",
    "ANALYZE t",
)
READ = "SELECT id FROM t WHERE ref = $1"
SENT = (recorded(READ, ["id bigint"], ["text"], [("r1",)]), recorded("UPDATE t SET ref = 'x' WHERE id = 1"))


def of(found: Sequence[Evidence], gate: str, version: str) -> Evidence:
    """The one of them."""
    (item,) = [item for item in found if (item.key.gate, item.key.version) == (gate, version)]
    return item


def test_plans_are_kept_before_expand_and_held_against_those_after_it(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = make_scene(database, tmp_path, ddl=LARGE, old=SENT, new=SENT)
    try:
        world = scene.world()
        with world.ledger.fenced():
            first = measure(world, look(world, revisions=False))
        before = of(first, "plan", V1)
        assert before.result.verdict is Verdict.PASS
        assert before.result.measured["planned"] == 1
        assert len(before.result.measured["plans"]) == 1
        walk(world, Act.SET_WEIGHT)
        again = of(measure(world, observe(world)), "plan", V1)
        assert (again.result.verdict, again.result.findings) == (Verdict.PASS, ())
        assert "plans" not in again.result.measured
        scene.sql("DROP INDEX t_ref")
        found = measure(world, observe(world))
        worse = of(found, "plan", V1).result
        assert worse.verdict is Verdict.PASS
        assert [finding.id for finding in worse.findings] == ["plan.scan", "plan.index"]
        # It blocks nothing, and whoever runs `verify` reads of it.
        assert show_evidence("a-change", "verify", [of(found, "plan", V1)], (), as_json=False) == 0
        told = capsys.readouterr()
        assert "warning: plan.scan" in told.err
        assert "now: Seq Scan on t" in told.err
    finally:
        scene.close()


def test_what_writes_is_counted_with_its_reason(database: str, tmp_path: Path) -> None:
    scene = make_scene(database, tmp_path, ddl=LARGE, old=SENT, new=SENT)
    try:
        world = scene.world()
        result = of(measure(world, observe(world)), "prepare", V1).result
        assert (result.measured["statements"], result.measured["asked"]) == (2, 1)
        ((why, count),) = result.measured["unasked"].items()
        assert count == 1
        assert "proven on a copy" in why
    finally:
        scene.close()


def test_revisions_that_were_not_read_let_nothing_pass(database: str, tmp_path: Path) -> None:
    scene = make_scene(database, tmp_path)
    try:
        world = scene.world()
        assert observe(world).revisions == ()
        assert observe(world, revisions=False).revisions
    finally:
        scene.close()


# Which evidence holds the plans before; pure.

PLANS = {"1": ["Seq Scan on t", [], ["t"]]}


def test_after_contract_there_is_no_law_left_to_hold(database: str, tmp_path: Path) -> None:
    with scene_of(database, tmp_path) as scene:
        world = scene.world()
        assert rollout(world).kind is Kind.DONE
        found = measure(world, observe(world))
        assert {(item.state, item.result.verdict) for item in found} == {(State.CONTRACTED, Verdict.PASS)}
        (cell,) = [c for c in matrix_now(world.plan, observe(world)) if (c.version, c.state) == (V2, State.CONTRACTED)]
        live = {name: verdict for name, verdict in cell.layers.items() if name.endswith("(live)")}
        assert set(live.values()) == {Verdict.PASS}
        assert live.keys() == {"prepare (live)", "shape (live)", "plan (live)", "probe (live)"}


def kept(item: Evidence) -> Evidence:
    """The same, with plans in it."""
    return replace(item, result=replace(item.result, measured={"plans": PLANS}))


@pytest.mark.parametrize(
    ("item", "found"),
    [
        (kept(evidence("plan", "v1", State.BASE)), True),
        (evidence("plan", "v1", State.BASE), False),
        (kept(evidence("plan", "v1", State.BASE, place=Place.COPY)), False),
        (kept(evidence("plan", "v1", State.EXPANDED)), False),
        (kept(evidence("plan", "v2", State.BASE)), False),
        (kept(evidence("prepare", "v1", State.BASE)), False),
    ],
)
def test_plans_before_come_from_the_live_database_before_expand(item: Evidence, found: bool) -> None:
    obs = Observation(now=NOW, state=State.EXPANDED, evidence=(item,))
    assert plans_before(obs, "v1") == (plan.kept({"plans": PLANS}) if found else {})
    assert plans_before(replace(obs, state=State.BASE), "v1") == {}
