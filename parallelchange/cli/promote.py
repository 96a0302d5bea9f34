"""`parallelchange promote`."""

from __future__ import annotations

import click

from parallelchange.cli import options

__all__ = ["command"]


@click.command("promote", short_help="Gate, then set the weight, as one act.")
@options.change
@options.weight
@options.database_url
@options.as_json
def command(change: str, to: int, database_url: str | None, as_json: bool) -> int:
    """Set the weight to W if every gate passes."""
    from parallelchange.cli.show import show_decision
    from parallelchange.cli.world import open_world, weight_now
    from parallelchange.gates.base import Act
    from parallelchange.rollout.decide import Kind
    from parallelchange.rollout.run import promote

    with open_world(change, database_url) as world:
        decision = promote(world, to)
        name, now = world.plan.change.name, weight_now(world)
    passed = decision.kind is Kind.DONE or (decision.kind is Kind.DO and decision.act is Act.SET_WEIGHT and now == to)
    return show_decision(name, decision, as_json=as_json, weight=now, passed=passed)
