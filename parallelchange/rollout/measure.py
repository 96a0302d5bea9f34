"""Measuring what `verify` measures: each evidence gate on the live database, and nothing that changes it."""

from __future__ import annotations

import uuid
from dataclasses import replace

from parallelchange.calls import next_sample
from parallelchange.gates import laws, plan, prepare, probe, shape
from parallelchange.gates.prepare import PlanFact
from parallelchange.gates.probe import ProbeFact
from parallelchange.model import FULL, Evidence, GateResult, Place, State
from parallelchange.rollout.observe import ALL_VERSIONS, Observation, expected_key, read_counts, watched
from parallelchange.rollout.world import Event, World

__all__ = ["keep_calls", "measure", "measure_laws", "plans_before", "rehearse"]


def rehearse(world: World) -> list[Evidence]:
    """Rehearse the change and record the evidence, as of when the copy was begun."""
    at = world.database.now()
    evidence = [replace(item, measured_at=at) for item in world.rehearse()]
    world.ledger.add_evidence(evidence)
    return evidence


def measure_laws(world: World, obs: Observation) -> GateResult:
    """Hold the laws against the rows as they stand, and record what was found."""
    at = world.database.now()
    result = laws.judge(world.database.laws(obs.state))
    key = expected_key(world.plan, obs, ALL_VERSIONS, laws.GATE.id)
    world.ledger.add_evidence([Evidence(key, result, at, uuid.uuid4().hex, obs.state)])
    return result


def plans_before(obs: Observation, version: str) -> dict[str, PlanFact]:
    """A version's plans on the live database before expand, out of the evidence of then; empty where there is none."""
    if obs.state is State.BASE:
        return {}
    for item in obs.evidence:
        key = item.key
        if (key.gate, key.version, key.place, item.state) == (plan.GATE.id, version, Place.LIVE, State.BASE):
            return plan.kept(item.result.measured)
    return {}


def keep_calls(world: World, weight: int | None) -> None:
    """Once all traffic is on the new version: record what the server has counted of the old one's statements.

    It is recorded anew whenever one was called since, so its age is how long they have stood still; and in the ledger,
    so that it is not begun again by the next process.
    """
    record = world.ledger.read() if weight == FULL else None
    counts = read_counts(world.plan, world.database) if record else None
    if record is None or counts is None:
        return
    now, since = world.database.now(), record.weight_since
    sample = next_sample(watched(world.plan), counts, record.calls, now=now, since=since)
    if sample is not None:
        world.ledger.keep_calls(sample)


def measure(world: World, obs: Observation) -> list[Evidence]:
    """Measure both versions on the live data and record the evidence.

    Args:
        world: The ports.
        obs: What it is measured on.

    Returns:
        The evidence, as recorded.
    """
    change = world.plan.change
    run = uuid.uuid4().hex
    # What happens while it is measured happens after it.
    at = world.database.now()
    if obs.sessions and not (obs.record and obs.record.old_seen):
        world.ledger.saw_old()
    results: list[tuple[str, GateResult]] = []
    if obs.state is not State.CONTRACTED:  # of one shape alone no law speaks
        results.append((ALL_VERSIONS, laws.judge(world.database.laws(obs.state))))
    # Before expand the new version's statements have nothing to run on; after contract the old one's.
    versions = {State.BASE: (change.old,), State.CONTRACTED: (change.new,)}.get(obs.state, change.versions)
    for version in versions:
        told = world.database.statements(version)
        results += [(version.name, gate.judge(version.name, told)) for gate in (prepare, shape)]
        planned = plan.judge(version.name, told, plans_before(obs, version.name))
        if obs.state is State.BASE:
            planned = replace(planned, measured={**planned.measured, "plans": plan.keep(plan.plans(told))})
        results.append((version.name, planned))
        if version.probe is None:
            fact = ProbeFact(version.name, declared=False, ok=None, detail="")
        else:
            fact = world.prober.probe(version, world.workloads.address(version.name))
        results.append((version.name, probe.judge(fact)))
    evidence = [
        Evidence(expected_key(world.plan, obs, version, result.gate), result, at, run, obs.state)
        for version, result in results
    ]
    world.ledger.add_evidence(evidence)
    for item in evidence:
        world.tell(Event("evidence", f"{item.result.gate}: {item.result.verdict}", {"result": item.result}))
    return evidence
