"""`parallelchange expand`."""

from __future__ import annotations

import click

from parallelchange.cli import options

__all__ = ["command"]


@click.command("expand", short_help="Make the new shape beside the old one.")
@options.change
@options.database_url
@options.as_json
def command(change: str, database_url: str | None, as_json: bool) -> int:
    """Make the new shape beside the old one, with the trigger that keeps both in step, in one transaction."""
    from parallelchange.cli.act import run_act
    from parallelchange.gates.base import Act
    from parallelchange.model import State

    return run_act(
        Act.EXPAND, change, database_url, as_json=as_json, already=lambda obs, _: obs.state is State.EXPANDED
    )
