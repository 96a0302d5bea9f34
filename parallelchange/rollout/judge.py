"""From an observation to the verdict of every gate before an act. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from parallelchange.gates import (
    EVIDENCE,
    GATES,
    LIVE,
    ON_COPY,
    backfill,
    copies,
    drained,
    guarding,
    metrics,
    routing,
    schema,
    soak,
    versions,
)
from parallelchange.gates.base import Act, unknown
from parallelchange.model import (
    FULL,
    Evidence,
    EvidenceKey,
    Finding,
    GateResult,
    Place,
    Severity,
    State,
    Verdict,
    combine,
)
from parallelchange.plan import Plan
from parallelchange.rollout.observe import ALL_VERSIONS, Observation, expected_key
from parallelchange.rollout.stale import differences

__all__ = ["Judgement", "cells", "copied", "counted", "drained_fact", "judge", "versions_fact", "why_stale"]

_FORWARD = (Act.EXPAND, Act.BACKFILL, Act.SET_WEIGHT, Act.RETIRE, Act.CONTRACT)
"""Acts that rest on evidence; the ways back do not."""


@dataclass(frozen=True)
class Judgement:
    """What the gates before an act say.

    Args:
        results: One verdict per gate and version.
        needs: What would have to be measured, anew or for the first time: `verify`, `rehearse`.
    """

    results: tuple[GateResult, ...]
    needs: frozenset[Act]

    @property
    def verdict(self) -> Verdict:
        """All of them joined."""
        return combine(result.verdict for result in self.results)

    def of(self, gate: str) -> Verdict:
        """The joined verdict of one gate; pass where it does not stand before this act."""
        found = [result.verdict for result in self.results if result.gate == gate]
        return combine(found) if found else Verdict.PASS


def judge(plan: Plan, obs: Observation, act: Act) -> Judgement:
    """Let every gate before an act speak."""
    results: list[GateResult] = []
    needs: set[Act] = set()
    tampered = bool(obs.tampered) and act in _FORWARD
    if tampered:
        told = Finding("evidence.tampered", Severity.ERROR, obs.tampered, "ledger", obs.tampered_remedy)
        results.append(GateResult("evidence", Verdict.FAIL, (told,)))
    for gate in guarding(act):
        if gate in EVIDENCE and tampered:
            continue
        if gate in EVIDENCE:
            for result, need in _evidence(plan, obs, act, gate):
                results.append(result)
                if need:
                    needs.add(need)
        else:
            results.extend(_READ[gate](plan, obs, act))
    return Judgement(tuple(results), frozenset(needs))


def _schema(plan: Plan, obs: Observation, act: Act) -> list[GateResult]:  # noqa: ARG001
    return [schema.judge(schema.SchemaFacts(obs.state, obs.differences, obs.revisions, obs.fingerprint), act)]


def _backfill(plan: Plan, obs: Observation, act: Act) -> list[GateResult]:  # noqa: ARG001
    recorded = (obs.record.backfills if obs.record else None) or {}
    facts = []
    for work in plan.backfills:
        known = recorded.get(work.id)
        if known and known["incarnation"] != obs.incarnation:
            known = None  # it filled the columns of an expand that was undone
        rows = int(known["rows"]) if known else None
        facts.append(backfill.BackfillFact(work.id, rows, bool(known and known["finished"])))
    return [backfill.judge(facts)]


def _soak(plan: Plan, obs: Observation, act: Act) -> list[GateResult]:  # noqa: ARG001
    weight = obs.weight
    if weight is None:
        return [unknown(soak.GATE, soak.GATE.finding("untold", obs.split_error))]
    return [soak.judge(soak.SoakFact(weight, obs.stood, plan.change.traffic.soak, obs.settled))]


def _metrics(plan: Plan, obs: Observation, act: Act) -> list[GateResult]:  # noqa: ARG001
    spec, change = plan.change.metrics, plan.change
    shares = {change.old.name: FULL - (obs.weight or 0), change.new.name: obs.weight or 0}
    results = []
    for version, share in shares.items():
        if not share:
            continue
        if spec is None:
            results.append(metrics.judge(None, version))
            continue
        sample = obs.samples.get(version)
        served = sample is not None and sample.requests > 0
        rate = 1 - sample.failures / sample.requests if served and sample else None
        p99 = sample.p99_ms if sample else None
        fact = metrics.MetricsFact(
            version,
            share,
            sample.requests if sample else None,
            rate,
            p99,
            sample.age if sample else 0.0,
            spec.min_requests,
            None if rate is None else spec.success_rate.holds(rate),
            None if p99 is None else spec.latency_p99.holds(p99),
            spec.success_rate.text,
            spec.latency_p99.text,
        )
        results.append(metrics.judge(fact, version))
    return results


def _drained(plan: Plan, obs: Observation, act: Act) -> list[GateResult]:  # noqa: ARG001
    return [drained.judge(drained_fact(plan, obs))]


def drained_fact(plan: Plan, obs: Observation) -> drained.DrainedFact:
    """What is left of the old version, as it was observed."""
    old = plan.change.old.name
    return drained.DrainedFact(
        old,
        obs.weight,
        obs.stood,
        plan.change.traffic.drain,
        obs.ready.get(old),
        obs.sessions,
        seen=obs.record is not None and obs.record.old_seen,
        settled=obs.settled,
        wanted=obs.wanted.get(old),
        prepared=obs.connected.prepared if obs.connected else None,
        replays=obs.connected.replays if obs.connected else (),
        calls=obs.calls,
    )


def versions_fact(plan: Plan, obs: Observation) -> versions.VersionsFact:
    """Who is live, as it was observed."""
    return versions.VersionsFact(*plan.change.identities, plan.change.clients, obs.connected, obs.others)


def _versions(plan: Plan, obs: Observation, act: Act) -> list[GateResult]:
    return [versions.judge(versions_fact(plan, obs), act)]


def _copies(plan: Plan, obs: Observation, act: Act) -> list[GateResult]:
    serving = (plan.change.new,) if act is Act.CONTRACT else plan.change.versions
    return [copies.judge(copies.CopiesFact(v.name, obs.ready.get(v.name), obs.builds.get(v.name))) for v in serving]


def _routing(plan: Plan, obs: Observation, act: Act) -> list[GateResult]:  # noqa: ARG001
    return [routing.judge(routing.RoutingFact(obs.routing, obs.split_error))]


_READ = {
    "schema": _schema,
    "backfill": _backfill,
    "copies": _copies,
    "routing": _routing,
    "versions": _versions,
    "soak": _soak,
    "metrics": _metrics,
    "drained": _drained,
}


def cells(plan: Plan) -> list[tuple[str, State]]:
    """The matrix: each version in each state of the schema that it has to live through."""
    old, new = plan.change.old.name, plan.change.new.name
    return [(old, State.BASE), (old, State.EXPANDED), (new, State.EXPANDED), (new, State.CONTRACTED)]


def copied(plan: Plan, gate: str) -> list[tuple[str, State]]:
    """Which versions a gate must be proven for on a copy, in which state of the schema."""
    if gate == "rehearsal":
        return [(ALL_VERSIONS, state) for state in (State.BASE, State.EXPANDED, State.CONTRACTED)]
    if gate == "roundtrip":  # both shapes live in one state alone
        return [(version.name, State.EXPANDED) for version in plan.change.versions]
    return cells(plan) if gate in ON_COPY else []


def _wanted(plan: Plan, obs: Observation, act: Act, gate: str) -> list[tuple[str, State, Place]]:
    """Which versions a gate must be proven for, in which state of the schema, and where."""
    old, new = plan.change.old.name, plan.change.new.name
    wanted = [(version, state, Place.COPY) for version, state in copied(plan, gate)]
    if gate == "laws":
        wanted += [(ALL_VERSIONS, obs.state, Place.LIVE)]
    elif gate in LIVE:
        live = {Act.EXPAND: [(old, State.BASE)], Act.CONTRACT: [(new, State.EXPANDED)]}
        serving = [(old, State.EXPANDED), (new, State.EXPANDED)]
        wanted += [(version, state, Place.LIVE) for version, state in live.get(act, serving)]
    return wanted


def _evidence(plan: Plan, obs: Observation, act: Act, gate: str) -> list[tuple[GateResult, Act | None]]:
    answers: list[tuple[GateResult, Act | None]] = []
    for version, state, place in _wanted(plan, obs, act, gate):
        maker = Act.REHEARSE if place is Place.COPY else Act.VERIFY
        found, stale = counted(plan, obs, gate, version, state, place)
        if found is not None and not stale:
            answers.append((found.result, None))
            continue
        speaks_of = None if version == ALL_VERSIONS else version
        where = f"{speaks_of or 'the data'}, {state}{' on a copy' if place is Place.COPY else ''}: {stale}"
        told = GATES[gate].finding(
            "missing" if found is None else "stale",
            where if found is None else f"stale: {where}",
            where=speaks_of or "",
            remedy=f"run `parallelchange {maker} {plan.change.name}`",
        )
        answers.append((unknown(GATES[gate], told, version=speaks_of), maker))
    return answers


def counted(
    plan: Plan, obs: Observation, gate: str, version: str, state: State, place: Place
) -> tuple[Evidence | None, str]:
    """The newest evidence of one verdict, and why it does not count now; empty when it does."""
    key = expected_key(plan, obs, version, gate, place)
    found = next((e for e in obs.evidence if _is_of(e, key) and e.state is state), None)
    return found, "nothing was measured" if found is None else why_stale(plan, obs, found)


def _is_of(evidence: Evidence, key: EvidenceKey) -> bool:
    """Whether it is evidence of that gate, version and place, whatever else it was measured on."""
    found = evidence.key
    return (found.gate, found.version, found.place) == (key.gate, key.version, key.place)


def _rehearsal_of_now(obs: Observation) -> str | None:
    """The run of the newest rehearsal that went through a schema like the live one."""
    for item in obs.evidence:
        if item.key.gate == "rehearsal" and item.state is obs.state and item.key.fingerprint == obs.fingerprint:
            return item.run
    return None


def why_stale(plan: Plan, obs: Observation, found: Evidence) -> str:
    """What differs now from what evidence was measured on, or why it does not count for another reason.

    Returns:
        The reason, to be read after `stale`; empty when it counts.
    """
    key = expected_key(plan, obs, found.key.version, found.key.gate, found.key.place)
    differs = differences(plan, obs, found, key, rehearsed=_rehearsal_of_now(obs))
    if differs:
        return "; ".join(differs)
    age = obs.now - found.measured_at
    if age > plan.change.max_age:
        return f"it was measured {age:.0f} s ago, and counts for {plan.change.max_age:.0f} s"
    since = obs.record.weight_since if obs.record else None
    if key.place is Place.LIVE and since is not None and found.measured_at < since:
        return "traffic moved since it was measured"
    if found.result.verdict is not Verdict.PASS and age > obs.watched > 0:
        return "it did not pass, before this run began; the cause may have been mended"
    return ""
