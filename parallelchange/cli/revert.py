"""`parallelchange revert`."""

from __future__ import annotations

import click

from parallelchange.cli import options

__all__ = ["command"]


@click.command("revert", short_help="Undo expand, while the new version has no traffic.")
@options.change
@options.database_url
def command(change: str, database_url: str | None) -> None:
    """Undo expand: the new shape goes, with what only it held. Refused while the new version has traffic."""
    from parallelchange.cli.act import progress_teller
    from parallelchange.cli.world import open_world
    from parallelchange.rollout.advance import revert

    with open_world(change, database_url, tell=progress_teller()) as world, world.ledger.fenced():
        revert(world)
        click.echo(f"{world.plan.change.name}: reverted: the schema is as before expand")
