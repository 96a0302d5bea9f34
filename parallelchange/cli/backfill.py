"""`parallelchange backfill`."""

from __future__ import annotations

import click

from parallelchange.cli import options

__all__ = ["command"]


@click.command("backfill", short_help="Fill the new shape; goes on where it stopped.")
@options.change
@options.database_url
@options.as_json
def command(change: str, database_url: str | None, as_json: bool) -> int:
    """Fill the new shape of the rows that are there. Killed at any point, it goes on where it stopped."""
    from parallelchange.cli.act import run_act
    from parallelchange.gates.base import Act
    from parallelchange.model import State, Verdict
    from parallelchange.rollout.decide import Decision
    from parallelchange.rollout.observe import Observation

    def _already(obs: Observation, decision: Decision) -> bool:
        filled = [r.verdict for r in decision.results if r.gate == "backfill"]
        return obs.state is State.EXPANDED and filled == [Verdict.PASS]

    return run_act(Act.BACKFILL, change, database_url, as_json=as_json, already=_already)
