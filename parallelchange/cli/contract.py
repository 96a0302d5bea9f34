"""`parallelchange contract`."""

from __future__ import annotations

import click

from parallelchange.cli import options

__all__ = ["command"]


@click.command("contract", short_help="Leave only the new shape; there is no way back.")
@options.change
@options.database_url
@options.as_json
def command(change: str, database_url: str | None, as_json: bool) -> int:
    """Leave only the new shape. Refused until nothing of the old version can come back."""
    from parallelchange.cli.act import run_act
    from parallelchange.gates.base import Act
    from parallelchange.rollout.decide import Kind

    return run_act(
        Act.CONTRACT, change, database_url, as_json=as_json, already=lambda _, decision: decision.kind is Kind.DONE
    )
