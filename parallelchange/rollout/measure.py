"""Measuring what `verify` measures: each evidence gate on the live database, and nothing that changes it."""

from __future__ import annotations

import uuid

from parallelchange.gates import laws, probe, statements
from parallelchange.gates.probe import ProbeFact
from parallelchange.model import Evidence, GateResult, State
from parallelchange.rollout.observe import ALL_VERSIONS, Observation, expected_key
from parallelchange.rollout.world import Event, World

__all__ = ["measure"]


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
    results: list[tuple[str, GateResult]] = [(ALL_VERSIONS, laws.judge(world.database.laws(obs.state)))]
    # Before expand the new version's statements have nothing to run on; after contract the old one's.
    versions = {State.BASE: (change.old,), State.CONTRACTED: (change.new,)}.get(obs.state, change.versions)
    for version in versions:
        results.append((version.name, statements.judge(version.name, world.database.statements(version))))
        if version.probe is None:
            fact = ProbeFact(version.name, declared=False, ok=None, detail="")
        else:
            fact = world.prober.probe(version, world.workloads.address(version.name))
        results.append((version.name, probe.judge(fact)))
    at = world.database.now()
    evidence = [
        Evidence(expected_key(world.plan, obs, version, result.gate), result, at, run, obs.state)
        for version, result in results
    ]
    world.ledger.add_evidence(evidence)
    for item in evidence:
        world.tell(Event("evidence", f"{item.result.gate}: {item.result.verdict}", {"result": item.result}))
    return evidence
