"""The loop: observe, decide, advance, until there is nothing to do or nothing may be done."""

from __future__ import annotations

from parallelchange.errors import Busy, SchemaState
from parallelchange.gates.base import Act
from parallelchange.model import State
from parallelchange.rollout.advance import advance
from parallelchange.rollout.decide import Decision, Kind, decide
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


def rollout(world: World) -> Decision:
    """Go on from wherever the change stands until it is contracted or blocked.

    Returns:
        The last decision: done, blocked or halted.

    Raises:
        SchemaState: The schema is half-way into the change.
    """
    began = world.clock.now()
    with world.ledger.fenced():
        while True:
            obs = whole(observe(world, began=began))
            decision = decide(world.plan, obs)
            world.tell(Event("decision", decision.why, {"decision": decision, "observation": obs}))
            match decision.kind:
                case Kind.WAIT:
                    world.clock.sleep(decision.seconds)
                case Kind.DO:
                    try:
                        advance(world, obs, decision)
                    except Busy as busy:
                        if decision.act is not Act.SET_WEIGHT:
                            raise
                        # Somebody wrote the split in between: look and judge again, never replay.
                        world.tell(Event("conflict", busy.message))
                    if decision.act is Act.ABORT:
                        return decision
                case _:
                    return decision


def look(world: World) -> Observation:
    """Observe, and first record what was done by somebody who could not say so. Needs the fence."""
    obs = observe(world)
    decision = decide(world.plan, obs)
    if decision.act is Act.ADOPT:
        advance(world, obs, decision)
        obs = observe(world)
    return obs


def gate(world: World, weight: int) -> Decision:
    """Say whether traffic may go to a weight; when it may, the ledger lets somebody else set just that.

    Args:
        world: The ports.
        weight: Thousandths.
    """
    with world.ledger.fenced():
        decision = decide(world.plan, look(world), to=weight)
        if decision.kind is Kind.DO and decision.act is Act.SET_WEIGHT:
            world.ledger.intend(Act.APPROVE, weight=weight, at=world.database.now())
        return decision


def promote(world: World, weight: int) -> Decision:
    """Gate and set the weight, as one act.

    Returns:
        The decision; the weight was set if it says to do so.
    """
    with world.ledger.fenced():
        obs = whole(look(world))
        decision = decide(world.plan, obs, to=weight)
        if decision.kind is Kind.DO and decision.act is Act.SET_WEIGHT:
            advance(world, obs, decision)
        return decision
