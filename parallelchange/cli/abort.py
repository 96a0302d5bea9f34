"""`parallelchange abort`."""

from __future__ import annotations

import click

from parallelchange.cli import options

__all__ = ["command"]


@click.command("abort", short_help="All traffic back to the old version.")
@options.change
@options.database_url
@click.option("--reason", default="asked for by hand", help="Goes into the ledger.")
def command(change: str, database_url: str | None, reason: str) -> None:
    """Send all traffic back to the old version; the schema stays expanded. Refused after contract."""
    from parallelchange.cli.world import open_world
    from parallelchange.rollout.advance import abort

    with open_world(change, database_url) as world:
        abort(world, reason)
        click.echo(f"{world.plan.change.name}: aborted: all traffic is on {world.plan.change.old.name}")
