"""`parallelchange rehearse`."""

from __future__ import annotations

from pathlib import Path

import click

from parallelchange.cli import options
from parallelchange.cli.evidence import sign_option

__all__ = ["command"]


@click.command("rehearse", short_help="Run the whole change on a scratch PostgreSQL.")
@options.change
@options.database_url
@click.option("--record/--no-record", default=True, help="Keep the evidence in the ledger of the database.")
@click.option(
    "--evidence",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write the evidence to a file, for `evidence import` elsewhere.",
)
@sign_option
@options.as_json
def command(
    change: str, database_url: str | None, record: bool, file: Path | None, sign: Path | None, as_json: bool
) -> int:
    """Copy the schema and some rows, then expand, backfill, verify both versions, contract, verify the new one."""
    from dataclasses import replace

    from parallelchange.cli.evidence import write_evidence
    from parallelchange.cli.show import note, show_evidence
    from parallelchange.cli.world import open_world
    from parallelchange.errors import UsageError
    from parallelchange.rollout.measure import rehearse
    from parallelchange.rollout.world import Event

    if sign and file is None:
        raise UsageError("--sign signs the file of --evidence, and none is named", hint="add --evidence FILE")
    if sign:
        from parallelchange.adapters.signing import read_private

        read_private(sign)  # a slip here must not cost a rehearsal

    def tell(event: Event) -> None:
        if event.kind == "rehearsal":
            note(event.what)

    with open_world(change, database_url, tell=tell, record=record) as world:
        at = world.database.now()
        evidence = rehearse(world) if record else [replace(item, measured_at=at) for item in world.rehearse()]
        plan = world.plan
        if file:
            write_evidence(plan, evidence, world.database.now(), file, sign)
    return show_evidence(plan.change.name, "rehearsal", evidence, as_json=as_json)
