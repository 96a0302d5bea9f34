"""`parallelchange emit`."""

from __future__ import annotations

from pathlib import Path

import click

from parallelchange.cli import options

__all__ = ["command"]


@click.group("emit", short_help="Alembic revisions, or manifests for a cluster, from a change.")
def command() -> None:
    """Write what other tools run, from a change: Alembic revisions, or manifests for a cluster."""


@command.command("alembic", short_help="Three Alembic revisions.")
@options.change
@options.database_url
def alembic(change: str, database_url: str | None) -> None:
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
    unrecorded = [v.name for v in plan.change.versions if v.statements is None or not v.statements.is_file()]
    for name in unrecorded:
        click.echo(f"next: parallelchange record {name} --change {change} -- COMMAND", err=True)
    click.echo(f"{'then' if unrecorded else 'next'}: parallelchange rehearse {change}", err=True)


@command.command("kubernetes", short_help="Manifests, made from the app's own.")
@options.change
@click.option(
    "--manifests",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="The app's own manifests, a file or a folder; may be given several times.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder; deploy/CHANGE by default.")
@click.option(
    "--strategy",
    type=click.Choice(["canary", "blue-green"]),
    default="canary",
    show_default=True,
    help="In stages, or all at once.",
)
@click.option("--namespace", metavar="NS", help="Where everything goes, if the manifests do not say.")
@click.option("--image-pull-secret", "pull_secrets", multiple=True, metavar="NAME", help="May be given several times.")
@click.option("--gate-image", metavar="IMAGE", help="Holds this repository and parallelchange.")
@click.option(
    "--split-version",
    type=click.Choice(["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"]),
    default="v1alpha2",
    show_default=True,
    help="Version of the TrafficSplit API.",
)
def kubernetes(
    change: str,
    manifests: tuple[Path, ...],
    out: Path | None,
    strategy: str,
    namespace: str | None,
    pull_secrets: tuple[str, ...],
    gate_image: str | None,
    split_version: str,
) -> None:
    """Write what a cluster needs for the change: both versions side by side, what moves traffic, guard and gates.

    All is made from the app's own manifests, which stay as they are. Running it again writes what changed.
    """
    from parallelchange import __version__
    from parallelchange.changefile import load_change
    from parallelchange.cli.settings import find_change, load_settings
    from parallelchange.emit.kubernetes import Options, emit, read, write

    path = find_change(change)
    root = load_settings(path.parent).root
    loaded = load_change(path)
    made = emit(
        loaded,
        read(manifests),
        Options(
            gate_image=gate_image or f"parallelchange:{__version__}",
            reference=(path.parent.resolve() / path.name).relative_to(root).as_posix(),
            strategy=strategy,
            namespace=namespace,
            pull_secrets=pull_secrets,
            split_version=split_version,
        ),
    )
    folder = out or root / "deploy" / loaded.name
    done = write(made.files, folder)
    for file in done.written:
        click.echo(f"wrote {file}")
    for file in done.removed:
        click.echo(f"removed {file}")
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{done.unchanged} of {len(made.files)} files were as they should be", err=True)
    click.echo(f"next: see {folder / 'kustomization.yaml'}", err=True)
