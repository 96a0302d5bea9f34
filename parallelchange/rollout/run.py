"""The loop: observe, decide, advance, until there is nothing to do or nothing may be done."""

from __future__ import annotations

from parallelchange.errors import Busy, SchemaState
from parallelchange.gates.base import Act
from parallelchange.model import Finding, Severity, State, Verdict
from parallelchange.ports import Record
from parallelchange.rollout.advance import advance
from parallelchange.rollout.decide import APPROVAL, Decision, Kind, decide
from parallelchange.rollout.measure import keep_calls, measure_laws
from parallelchange.rollout.observe import Observation, observe
from parallelchange.rollout.world import Event, World

__all__ = ["gate", "look", "promote", "rollout", "whole"]


def whole(obs: Observation) -> Observation:
    """Let nothing be done to a schema that is half-way.

    Raises:
        SchemaState: It is.
    """
    if obs.state is State.PARTIAL:
        raise SchemaState(
            f"the schema is half-way into the change: {'; '.join(obs.differences)}",
            hint="finish or undo by hand what was begun; `parallelchange plan --sql` shows what belongs there",
        )
    return obs


def rollout(world: World, *, again: bool = False) -> Decision:
    """Go on from wherever the change stands until it is contracted or blocked.

    Args:
        world: The ports.
        again: Start over although it was aborted.

    Returns:
        The last decision: done, blocked or halted.

    Raises:
        SchemaState: The schema is half-way into the change.
    """
    began = world.clock.now()
    measured: set[Act] = set()
    with world.lead() as lead, world.ledger.fenced():
        record = world.ledger.read()
        unfinished = ((record.pending if record else None) or {}).get("act") == Act.ABORT
        if record and record.aborted and not again and not unfinished:
            return _aborted(record)
        aborts = record.aborts if record else 0
        while True:
            lead.check()
            obs = whole(observe(world, began=began))
            _keep(world, obs)
            decision = decide(world.plan, obs)
            if obs.record and obs.record.aborts != aborts and decision.act is not Act.ABORT:
                return _aborted(obs.record)
            obs, decision = _recheck(world, obs, _unless_measured(decision, measured), began=began)
            decision = _unless_measured(decision, measured)
            world.tell(Event("decision", decision.why, {"decision": decision, "observation": obs}))
            if decision.kind is Kind.WAIT:
                world.wait(decision.seconds)
                continue
            if decision.kind is not Kind.DO:
                _void_approval(world, obs)
                return decision
            lead.check()
            _advance(world, obs, decision)
            if decision.act is Act.ABORT:
                return decision
            measured = measured | {decision.act} if decision.act in _MEASURES else set()


def _aborted(record: Record) -> Decision:
    why = f"it was aborted: {record.aborted}"
    remedy = "once the cause is mended: `parallelchange rollout --again`"
    finding = Finding("rollout.aborted", Severity.ERROR, why, "ledger", remedy)
    return Decision(Kind.BLOCKED, why, findings=(finding,))


_MEASURES = (Act.VERIFY, Act.REHEARSE)


def _unless_measured(decision: Decision, measured: set[Act]) -> Decision:
    """What was just measured and still does not count will not count the next time either."""
    if decision.act not in measured:
        return decision
    open_ = [result for result in decision.results if result.verdict is not Verdict.PASS]
    first = next((finding.message for result in open_ for finding in result.findings), decision.why)
    gates = tuple(dict.fromkeys(result.gate for result in open_))
    return Decision(Kind.BLOCKED, f"measured anew, and still: {first}", results=decision.results, gates=gates)


def _advance(world: World, obs: Observation, decision: Decision) -> None:
    try:
        advance(world, obs, decision)
    except Busy as busy:
        if decision.act is not Act.SET_WEIGHT:
            raise
        # Somebody wrote the split in between: look and judge again, never replay.
        world.tell(Event("conflict", busy.message))


def _recheck(
    world: World, obs: Observation, decision: Decision, *, to: int | None = None, began: float | None = None
) -> tuple[Observation, Decision]:
    """Before traffic grows, hold the laws against the rows of this very moment.

    Args:
        world: The ports.
        obs: What was seen.
        decision: What was decided on it.
        to: As for `decide`.
        began: As for `observe`.

    Returns:
        What is seen after that, and what is decided on it.
    """
    if decision.act is not Act.SET_WEIGHT or decision.weight is None or decision.weight <= (obs.weight or 0):
        return obs, decision
    result = measure_laws(world, obs)
    if result.verdict is not Verdict.PASS:
        results = (*(r for r in decision.results if r.gate != result.gate), result)
        told = result.findings[0].message if result.findings else "nothing was measured"
        return obs, Decision(Kind.BLOCKED, f"{result.gate}: {told}", results=results, gates=(result.gate,))
    # To read every row of a large table takes minutes, in which another build or schema may have come.
    seen = observe(world, began=began)
    anew = decide(world.plan, seen, to=to)
    aborts = obs.record.aborts if obs.record else 0
    if seen.record and seen.record.aborts != aborts and anew.act is not Act.ABORT:
        return seen, _aborted(seen.record)
    return seen, anew


def look(world: World, *, revisions: bool = True) -> Observation:
    """Observe, and first record what was done by somebody who could not say so. Needs the fence."""
    obs = observe(world, revisions=revisions)
    decision = decide(world.plan, obs)
    if decision.act is Act.ADOPT:
        advance(world, obs, decision)
        obs = observe(world, revisions=revisions)
    _keep(world, obs)
    return obs


def _keep(world: World, obs: Observation) -> None:
    if obs.counts is not None:
        keep_calls(world, obs.weight)


def gate(world: World, weight: int) -> tuple[Decision, int | None]:
    """Say whether traffic may go to a weight; when it may, the ledger lets somebody else set just that.

    Args:
        world: The ports.
        weight: Thousandths.

    Returns:
        The decision, and the weight as it stands.
    """
    with world.ledger.fenced():
        obs = look(world)
        obs, decision = _recheck(world, obs, decide(world.plan, obs, to=weight), to=weight)
        if decision.kind is Kind.DO and decision.act is Act.SET_WEIGHT:
            approved = {"fingerprint": obs.fingerprint, "plan": world.plan.digest, "incarnation": obs.incarnation,
                        "builds": dict(obs.builds)}  # fmt: skip
            now = world.database.now()
            world.ledger.intend(Act.APPROVE, weight=weight, at=now, **approved)
            world.enforcement.allow(weight, until=now + APPROVAL)
        else:
            _void_approval(world, obs)
        return decision, obs.weight


def _void_approval(world: World, obs: Observation) -> None:
    """After a refusal, what was approved before is not approved any more."""
    if obs.weight is not None and obs.state is not State.CONTRACTED:
        # What stands and was approved may be written again: other writers of the split need not fail.
        world.enforcement.allow(min(obs.weight, (obs.record.weight if obs.record else None) or 0))
    pending = (obs.record.pending if obs.record else None) or {}
    if pending.get("act") == Act.APPROVE:
        world.ledger.settle(Act.APPROVE, "void")


def promote(world: World, weight: int) -> Decision:
    """Gate and set the weight, as one act.

    Returns:
        The decision; the weight was set if it says to do so.
    """
    with world.ledger.fenced():
        obs = whole(look(world))
        obs, decision = _recheck(world, obs, decide(world.plan, obs, to=weight), to=weight)
        if decision.kind is Kind.DO and decision.act is Act.SET_WEIGHT:
            advance(world, obs, decision)
        else:
            _void_approval(world, obs)
        return decision
