"""`parallelchange verify`."""

from __future__ import annotations

import click

from parallelchange.cli import options

__all__ = ["command"]


@click.command("verify", short_help="Measure both versions on the live data; record evidence.")
@options.change
@options.database_url
@options.as_json
def command(change: str, database_url: str | None, as_json: bool) -> int:
    """Measure both versions on the live data and record the evidence that `gate` reads. Nothing is executed."""
    from parallelchange.cli.show import note, show_evidence
    from parallelchange.cli.world import open_world
    from parallelchange.rollout.matrix import matrix_now
    from parallelchange.rollout.measure import measure
    from parallelchange.rollout.observe import observe
    from parallelchange.rollout.run import look

    with open_world(change, database_url) as world, world.ledger.fenced():
        obs = look(world, revisions=False)
        if obs.differences:
            note(f"warning: the schema is {obs.state}: {'; '.join(obs.differences)}; is it the right database?")
        evidence = measure(world, obs)
        plan, cells = world.plan, matrix_now(world.plan, observe(world, revisions=False))
    return show_evidence(plan.change.name, "verify", evidence, cells, as_json=as_json)
