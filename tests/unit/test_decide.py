"""The one decision. Above all: nothing advances that is not proven."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from helpers.observations import (
    LAST,
    NEW,
    NOW,
    OLD,
    PLAN,
    STAGE,
    WANTED,
    WRONGS,
    ZERO,
    Wrong,
    all_is_well,
    evidence,
    put,
    record,
    served,
    session,
)
from hypothesis import given
from hypothesis import strategies as st

from parallelchange.calls import Stillness
from parallelchange.gates import Act, guarding
from parallelchange.model import FULL, State, Verdict
from parallelchange.ports import Split
from parallelchange.rollout.decide import Decision, Kind, decide
from parallelchange.rollout.judge import judge
from parallelchange.rollout.observe import Observation
from parallelchange.sessions import Connected

STAGES = PLAN.change.traffic.stages
PLACES = {ZERO: (0,), STAGE: (50, 125, 250, 500, 999), LAST: (FULL,)}


def place(weight: int) -> str:
    return ZERO if weight == 0 else LAST if weight == FULL else STAGE


def advances(decision: Decision, obs: Observation) -> bool:
    """Whether it lets more traffic onto the new version, or takes the old shape away."""
    if decision.kind is not Kind.DO:
        return False
    more = decision.act is Act.SET_WEIGHT and (decision.weight or 0) > (obs.weight or 0)
    return more or decision.act in (Act.CONTRACT, Act.RETIRE)


def told(decision: Decision) -> str:
    """All that a decision says."""
    found = [f.message for f in decision.findings] + [f.message for r in decision.results for f in r.findings]
    return "\n".join([decision.why, *found, *decision.gates])


# When all is well.


@pytest.mark.parametrize(
    ("weight", "following"), [(0, 50), (50, 250), (125, 250), (250, 500), (500, 1000), (999, 1000)]
)
def test_when_all_is_well_the_next_stage_is_set(weight: int, following: int) -> None:
    decision = decide(PLAN, all_is_well(weight))
    assert (decision.kind, decision.act, decision.weight) == (Kind.DO, Act.SET_WEIGHT, following)
    assert decision.verdict is Verdict.PASS
    assert {result.gate for result in decision.results} == set(guarding(Act.SET_WEIGHT))


def test_when_the_old_version_is_drained_the_change_is_contracted() -> None:
    decision = decide(PLAN, all_is_well(FULL))
    assert (decision.kind, decision.act) == (Kind.DO, Act.CONTRACT)
    assert {result.gate for result in decision.results} == set(guarding(Act.CONTRACT))
    assert "drained" in guarding(Act.CONTRACT)


def test_the_old_versions_copies_are_stopped_before() -> None:
    obs = replace(all_is_well(FULL), ready={OLD: 2, NEW: 1}, sessions=("pid 1",))
    decision = decide(PLAN, obs)
    assert (decision.kind, decision.act) == (Kind.DO, Act.RETIRE)


def test_a_contracted_change_is_done() -> None:
    decision = decide(PLAN, replace(all_is_well(FULL), state=State.CONTRACTED))
    assert (decision.kind, decision.verdict) == (Kind.DONE, Verdict.PASS)


# When something is not.


@pytest.mark.parametrize(
    ("weight", "wrong"),
    [
        pytest.param(PLACES[where][-1], wrong, id=f"{where}: {wrong.name}")
        for wrong in WRONGS
        for where in wrong.matters
    ],
)
def test_anything_wrong_stops_it_and_is_named(weight: int, wrong: Wrong) -> None:
    obs = wrong.make(all_is_well(weight))
    decision = decide(PLAN, obs)
    if decision.act is Act.RETIRE:
        # Stopping the old version's copies needs fewer proofs; contract comes after it.
        assert wrong.name == "a copy of the old version"
        return
    assert not advances(decision, obs)
    assert wrong.says in told(decision)
    assert decision.why


wrong_things = st.lists(st.sampled_from(WRONGS), min_size=1, max_size=4)


@given(
    st.sampled_from([w for weights in PLACES.values() for w in weights]), wrong_things, st.none() | st.integers(0, FULL)
)
def test_nothing_advances_while_anything_is_wrong(weight: int, wrongs: list[Wrong], to: int | None) -> None:
    obs = all_is_well(weight)
    wrongs = [wrong for wrong in wrongs if place(weight) in wrong.matters]
    for wrong in wrongs:
        obs = wrong.make(obs)
    decision = decide(PLAN, obs, to=to)
    if wrongs and decision.act is not Act.RETIRE:
        assert not advances(decision, obs)
    _is_safe(decision, obs, to)


anything = st.builds(
    Observation,
    now=st.just(NOW),
    state=st.sampled_from(State),
    fingerprint=st.sampled_from(["live", "of base"]),
    revisions=st.sampled_from([(), ("edited",)]),
    record=st.none()
    | st.builds(
        replace,
        st.sampled_from([all_is_well(w).record for weights in PLACES.values() for w in weights]),
        weight_since=st.none() | st.floats(NOW - 3000, NOW),
        pending=st.none() | st.fixed_dictionaries({
            "act": st.sampled_from(["abort", "set-weight", "contract", "approve", "backfill"]),
            "weight": st.sampled_from([0, *STAGES]),
            "at": st.sampled_from([NOW, NOW - 5000]),
        }),
    ),
    evidence=st.lists(st.sampled_from([
        evidence(gate, *which, verdict) for gate, which_ones in WANTED.items() for which in which_ones
        for verdict in (Verdict.PASS, Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN)
    ]), max_size=12).map(tuple) | st.just(all_is_well(0).evidence),
    split=st.none() | st.sampled_from([0, *STAGES, 777]).map(lambda weight: Split("split", weight, "1", {})),
    builds=st.sampled_from([all_is_well(0).builds, {}]),
    ready=st.fixed_dictionaries({OLD: st.none() | st.integers(0, 2), NEW: st.none() | st.integers(0, 2)}),
    sessions=st.none() | st.sampled_from([(), ("pid 1",)]),
    samples=st.sampled_from([all_is_well(0).samples, {}, {OLD: None, NEW: None}]),
    corpora=st.just(all_is_well(0).corpora),
    watched=st.sampled_from([0.0, 1000.0]),
    incarnation=st.sampled_from(["1", "1", "0"]),
    settled=st.booleans(),
    connected=st.none() | st.sampled_from([all_is_well(0).connected, all_is_well(FULL).connected, Connected((
        session("shop-v0"),
    ))]),
    others=st.sampled_from([(), (), None, ("pod x",)]),
    wanted=st.sampled_from([{OLD: 0, NEW: 1}, {OLD: 1, NEW: 1}, {}]),
    calls=st.sampled_from([all_is_well(0).calls, Stillness(None, "not here"), Stillness(1, grew=("x",)), None]),
)  # fmt: skip


@given(anything, st.none() | st.integers(0, FULL))
def test_whatever_is_seen_the_decision_is_safe(obs: Observation, to: int | None) -> None:
    _is_safe(decide(PLAN, obs, to=to), obs, to)


def _is_safe(decision: Decision, obs: Observation, to: int | None) -> None:  # noqa: PLR0911 - a list of cases
    """What must hold of every decision there is."""
    assert decision.why or obs.split is None
    if obs.split is None:
        assert decision.kind is Kind.BLOCKED
        return
    weight, intended = obs.split.weight, (obs.record.weight if obs.record else 0) or 0
    if decision.kind is not Kind.DO:
        assert decision.act is None
        return
    assert decision.act is not None
    if decision.act is Act.ADOPT:
        # Nothing moves: what is already so is written down.
        assert decision.weight in (None, weight)
        assert obs.record is not None
        assert obs.record.pending
        return
    if decision.act is Act.ABORT:
        assert obs.state is not State.CONTRACTED
        return
    # Whatever else is done, the world is as it was left, and not half-way.
    assert weight == intended
    assert obs.state is not State.CONTRACTED
    if not advances(decision, obs) and decision.act is Act.SET_WEIGHT:
        assert decision.weight == to < weight  # type: ignore[operator]
        return
    assert obs.state in (State.BASE, State.EXPANDED)
    if decision.act in (Act.REHEARSE, Act.VERIFY):
        return
    wanted = guarding(decision.act)
    assert {result.gate for result in decision.results} == set(wanted)
    assert all(result.verdict is Verdict.PASS for result in decision.results)
    assert obs.revisions == ()
    if decision.act in (Act.EXPAND, Act.BACKFILL):
        assert weight == 0
        return
    assert obs.state is State.EXPANDED
    assert obs.record is not None
    assert all((obs.record.backfills or {})[work.id]["finished"] for work in PLAN.backfills)
    if decision.act is Act.SET_WEIGHT:
        following = next(stage for stage in STAGES if stage > weight)
        assert weight < (decision.weight or 0) <= following
        assert to is None or decision.weight == to
        assert weight == 0 or (obs.stood or 0) >= PLAN.change.traffic.soak
    else:
        assert to is None
        assert weight == FULL
        assert (obs.stood or 0) >= max(PLAN.change.traffic.soak, PLAN.change.traffic.drain)
    if decision.act is Act.CONTRACT:
        assert obs.ready[OLD] == 0
        assert obs.sessions == ()
        assert obs.wanted[OLD] == 0
        assert obs.calls is not None
        assert not obs.calls.grew
    if decision.act in (Act.SET_WEIGHT, Act.CONTRACT):
        assert obs.others == ()
        assert obs.connected is not None
        assert "shop-v0" not in {session.application_name for session in obs.connected.sessions}


# Case by case.


def approved(**changes: Any) -> Any:
    """From 5 % the gate has let a pipeline go to 25 %."""
    builds = {OLD: "build-1", NEW: "build-2"}
    seen = {"fingerprint": "live", "plan": PLAN.digest, "incarnation": "1", "builds": builds, "at": NOW, **changes}
    return record(weight=50, pending={"act": "approve", "weight": 250, **seen})


CASES: list[tuple[str, int, Any, int | None, Kind, Act | None, int | None]] = [
    ("nothing is there", 0, put(state=State.BASE, evidence=(), record=None), None, Kind.DO, Act.VERIFY, None),
    ("nothing is filled", 0, record(backfills={}), None, Kind.DO, Act.BACKFILL, None),
    ("a weight and no backfill", 50, record(backfills={}), None, Kind.HALTED, None, None),
    ("a weight and no new shape", 50, put(state=State.BASE), None, Kind.HALTED, None, None),
    ("a schema half-way", 50, put(state=State.PARTIAL), None, Kind.BLOCKED, None, None),
    ("a schema half-way at 0", 0, put(state=State.PARTIAL), None, Kind.BLOCKED, None, None),
    ("no split", 50, put(split=None, split_error="gone"), None, Kind.BLOCKED, None, None),
    ("no split, going down", 50, put(split=None, split_error="gone"), 0, Kind.BLOCKED, None, None),
    ("drift", 50, record(weight=250), None, Kind.HALTED, None, None),
    ("drift, going down", 50, record(weight=250), 0, Kind.HALTED, None, None),
    ("drift from nothing", 50, put(record=None), None, Kind.HALTED, None, None),
    ("an abort that was begun", 250, record(pending={"act": "abort", "reason": "x"}), None, Kind.DO, Act.ABORT, None),
    ("an abort, asked to advance", 50, record(pending={"act": "abort"}), 250, Kind.DO, Act.ABORT, None),
    ("a weight set and not said", 250, record(weight=50, pending={"act": "set-weight", "weight": 250}), None,
     Kind.DO, Act.ADOPT, 250),
    ("a weight meant and not set", 50, record(pending={"act": "set-weight", "weight": 250}), None,
     Kind.DO, Act.SET_WEIGHT, 250),
    ("another weight than was meant", 500, record(weight=50, pending={"act": "set-weight", "weight": 250}), None,
     Kind.HALTED, None, None),
    ("a weight that was approved", 250, approved(at=NOW - 5),
     None, Kind.DO, Act.ADOPT, 250),
    ("an approval that is too old", 250, approved(at=NOW - 901),
     None, Kind.HALTED, None, None),
    ("an approval of another schema", 250,
     approved(fingerprint="x"),
     None, Kind.HALTED, None, None),
    ("an approval of another plan", 250,
     approved(plan="x"),
     None, Kind.HALTED, None, None),
    ("an approval of another expand", 250,
     approved(incarnation="0"),
     None, Kind.HALTED, None, None),
    ("an approval of another build", 250, approved(builds={OLD: "build-1", NEW: "build-0"}),
     None, Kind.HALTED, None, None),
    ("an approval of a build that is not told", 250,
     lambda o: approved()(replace(o, builds={OLD: "build-1", NEW: None})), None, Kind.DO, Act.ADOPT, 250),
    ("an approval that names no build", 250, approved(builds=None), None, Kind.HALTED, None, None),
    ("more than was approved", 500, approved(),
     None, Kind.HALTED, None, None),
    ("soaking", 50, record(weight_since=NOW - 9.5), None, Kind.WAIT, None, None),
    ("the new version harms", 50, served(NEW, failures=50), None, Kind.DO, Act.ABORT, None),
    ("the old version is harmed", 50, served(OLD, failures=50), None, Kind.DO, Act.ABORT, None),
    ("harm while soaking", 50, lambda o: record(weight_since=NOW - 2)(served(NEW, failures=50)(o)), None,
     Kind.DO, Act.ABORT, None),
    ("harm at the end", FULL, served(NEW, failures=50), None, Kind.DO, Act.ABORT, None),
    ("harm at 0 is not ours", 0, served(OLD, failures=50), None, Kind.BLOCKED, None, None),
    ("no figures yet", 50, lambda o: replace(o, samples={}, watched=1.0), None, Kind.WAIT, None, None),
    ("no figures", 50, put(samples={}), None, Kind.BLOCKED, None, None),
    ("to the next stage", 50, put(), 250, Kind.DO, Act.SET_WEIGHT, 250),
    ("to less than the next stage", 50, put(), 100, Kind.DO, Act.SET_WEIGHT, 100),
    ("over a stage", 50, put(), 500, Kind.BLOCKED, None, None),
    ("over all stages", 0, put(), FULL, Kind.BLOCKED, None, None),
    ("to where it is", 50, put(evidence=()), 50, Kind.DONE, None, None),
    ("down without proof", 250, put(evidence=(), samples={}), 50, Kind.DO, Act.SET_WEIGHT, 50),
    ("down with half a schema", 250, put(state=State.PARTIAL), 0, Kind.DO, Act.SET_WEIGHT, 0),
    ("down and nothing filled", 250, record(backfills={}), 0, Kind.DO, Act.SET_WEIGHT, 0),
    ("contracted under the old version", 50, put(state=State.CONTRACTED), None, Kind.HALTED, None, None),
    ("contracted under it, same weight", 50, put(state=State.CONTRACTED), 50, Kind.HALTED, None, None),
    ("contracted under it, going up", 50, put(state=State.CONTRACTED), FULL, Kind.HALTED, None, None),
    ("contracted, moved by hand", FULL, lambda o: record(weight=50)(replace(o, state=State.CONTRACTED)), None,
     Kind.DONE, None, None),
    ("down after contract", FULL, put(state=State.CONTRACTED), 0, Kind.BLOCKED, None, None),
    ("down and nobody to take it", 250, put(ready={OLD: 0, NEW: 1}), 0, Kind.BLOCKED, None, None),
    ("the mesh does not follow", 50, put(settled=False), None, Kind.BLOCKED, None, None),
    ("draining", FULL, record(weight_since=NOW - 20), None, Kind.WAIT, None, None),
    ("sessions that may still end", FULL, put(sessions=("pid 1",), now=NOW - 700), None, Kind.WAIT, None, None),
    ("sessions that do not end", FULL, put(sessions=("pid 1",)), None, Kind.BLOCKED, None, None),
    ("sessions nobody can tell", FULL, put(sessions=None), None, Kind.BLOCKED, None, None),
    ("contract was committed", FULL, lambda o: record(pending={"act": "contract"})(replace(o, state=State.CONTRACTED)),
     None, Kind.DO, Act.ADOPT, None),
]  # fmt: skip


@pytest.mark.parametrize(("weight", "make", "to", "kind", "act", "target"), [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])  # fmt: skip
def test_case(weight: int, make: Any, to: int | None, kind: Kind, act: Act | None, target: int | None) -> None:
    obs = make(all_is_well(weight))
    decision = decide(PLAN, obs, to=to)
    assert (decision.kind, decision.act, decision.weight) == (kind, act, target), decision.why
    if kind is Kind.WAIT:
        assert 0 < decision.seconds <= 1
    if kind in (Kind.BLOCKED, Kind.HALTED):
        assert decision.verdict is not Verdict.PASS
        assert decision.findings or any(result.verdict is not Verdict.PASS for result in decision.results)


def test_an_expand_needs_proof_of_the_old_version_and_a_rehearsal() -> None:
    proofs = (
        *(
            evidence(gate, *which, place=at)
            for (gate, at), wanted in WANTED.items()
            for which in wanted
            if at == "copy"
        ),
        *(evidence(gate, OLD, State.BASE) for gate in ("prepare", "shape", "plan")),
        replace(evidence("laws", "*", State.EXPANDED), state=State.BASE),
    )
    fresh = tuple(
        replace(item, key=replace(item.key, fingerprint="of base")) if item.state is State.BASE else item
        for item in proofs
    )
    obs = replace(all_is_well(0), state=State.BASE, fingerprint="of base", record=None, evidence=fresh)
    assert decide(PLAN, obs).act is Act.EXPAND
    for index in range(len(fresh)):
        less = replace(obs, evidence=fresh[:index] + fresh[index + 1 :])
        assert decide(PLAN, less).act in (Act.VERIFY, Act.REHEARSE)


def test_the_cheaper_measurement_comes_first() -> None:
    obs = replace(all_is_well(50), evidence=())
    assert decide(PLAN, obs).act is Act.VERIFY
    left = tuple(item for item in all_is_well(50).evidence if item.key.place != "copy")
    assert decide(PLAN, replace(obs, evidence=left)).act is Act.REHEARSE


def test_the_newest_evidence_counts_and_a_pass_before_it_does_not() -> None:
    obs = all_is_well(50)
    worse = evidence("laws", "*", State.EXPANDED, Verdict.FAIL)
    assert decide(PLAN, replace(obs, evidence=(worse, *obs.evidence))).kind is Kind.BLOCKED


@pytest.mark.parametrize(("act", "weight"), [(Act.SET_WEIGHT, 50), (Act.CONTRACT, FULL)])
def test_a_judgement_names_every_gate_even_without_any_evidence(act: Act, weight: int) -> None:
    judged = judge(PLAN, replace(all_is_well(weight), evidence=(), samples={}), act)
    assert {result.gate for result in judged.results} == set(guarding(act))
    assert judged.verdict is Verdict.UNKNOWN
    assert judged.needs == {Act.VERIFY, Act.REHEARSE}


def test_a_proof_that_failed_in_an_earlier_run_is_measured_again() -> None:
    """Its cause may have been mended since; in the run that measured it, it stands."""
    worse = replace(evidence("laws", "*", State.EXPANDED, Verdict.FAIL), measured_at=NOW - 100)
    obs = all_is_well(50)
    obs = replace(obs, evidence=(worse, *obs.evidence))
    assert decide(PLAN, replace(obs, watched=50.0)).act is Act.VERIFY
    assert decide(PLAN, replace(obs, watched=200.0)).kind is Kind.BLOCKED


def test_a_build_nobody_can_tell_while_it_has_traffic_is_not_taken_for_the_proven_one() -> None:
    obs = replace(all_is_well(50), builds={OLD: None, NEW: None})
    assert not advances(decide(PLAN, obs), obs)
