"""`parallelchange record`."""

from __future__ import annotations

from pathlib import Path

import click

from parallelchange.cli import options

__all__ = ["command"]


@click.command(
    "record",
    short_help="Run an app's tests and keep every statement it sends.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("version")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--change", required=True, help="The change the version belongs to.")
@click.option("--setup", metavar="CMD", help="Run first, on the schema before the change, to fill the tables.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Default: as the change file says.")
@options.database_url
def command(
    version: str, argv: tuple[str, ...], change: str, setup: str | None, output: Path | None, database_url: str | None
) -> None:
    """Run ARGV, the app's tests, on a scratch PostgreSQL and keep every statement VERSION sends.

    DATABASE_URL names the scratch database. The old version is recorded on the schema before the
    change, the new one on the expanded schema.
    """
    import shlex

    from parallelchange.adapters.planning import load_plan
    from parallelchange.cli.world import settings_for
    from parallelchange.corpus import write_corpus
    from parallelchange.errors import UsageError
    from parallelchange.local.record import record

    path, settings = settings_for(change, database_url)
    plan = load_plan(path, settings.database_url)
    found = next((v for v in plan.change.versions if v.name == version), None)
    if found is None:
        names = " and ".join(v.name for v in plan.change.versions)
        raise UsageError(f"{plan.change.name} has no version {version}", hint=f"it leads between {names}")
    target = output or found.statements
    if target is None:
        raise UsageError(f"{version} names no file for its statements", hint="set `statements`, or pass --output")
    corpus = record(plan, found, settings.alembic, argv, setup=shlex.split(setup or ""), cwd=Path.cwd())
    write_corpus(target, corpus)
    click.echo(f"wrote {target}: {len(corpus.statements)} statements, {len(corpus.units)} units of work")
