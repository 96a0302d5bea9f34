"""`parallelchange emit`."""

from __future__ import annotations

import click

from parallelchange.cli import options

__all__ = ["command"]


@click.command("emit", short_help="Write Alembic revisions from a change.")
@click.argument("target", type=click.Choice(["alembic"]))
@options.change
@options.database_url
def command(target: str, change: str, database_url: str | None) -> None:  # noqa: ARG001 - one target so far
    """Write the change's three Alembic revisions, and keep the tables it starts from in its lock file.

    The tables are read from the database, which must not be expanded yet; where there is a lock file
    already, it is what counts. Running it again writes the same.
    """
    from parallelchange.adapters.planning import check_plan, load_plan, lock_path, write_lock
    from parallelchange.cli.world import settings_for
    from parallelchange.emit.alembic import emit

    path, settings = settings_for(change, database_url)
    known = lock_path(path).is_file()
    plan = load_plan(path, settings.database_url)
    if known and settings.database_url:
        check_plan(plan, settings.url())
    written = emit(plan, settings.alembic)
    if not known:
        written.append(write_lock(plan))
    for file in written:
        click.echo(f"wrote {file}")
    click.echo(f"next: parallelchange rehearse {change}", err=True)
