"""`parallelchange rehearse`."""

from __future__ import annotations

import click

from parallelchange.cli import options

__all__ = ["command"]


@click.command("rehearse", short_help="Run the whole change on a scratch PostgreSQL.")
@options.change
@options.database_url
@click.option(
    "--on",
    metavar="DSN",
    help="A database on the server to make the copy on, beside it. The embedded server otherwise.",
)
@click.option("--record/--no-record", default=True, help="Keep the evidence in the ledger of the database.")
@options.as_json
def command(change: str, database_url: str | None, on: str | None, record: bool, as_json: bool) -> int:
    """Copy the schema and some rows, then expand, backfill, verify both versions, contract, verify the new one."""
    from parallelchange.cli.show import note, show_evidence
    from parallelchange.cli.world import open_world
    from parallelchange.rollout.matrix import matrix_of
    from parallelchange.rollout.measure import rehearse
    from parallelchange.rollout.world import Event

    def tell(event: Event) -> None:
        if event.kind == "rehearsal":
            note(event.what)

    with open_world(change, database_url, tell=tell, record=record, on=on) as world:
        evidence = rehearse(world) if record else list(world.rehearse())
        plan = world.plan
    return show_evidence(plan.change.name, "rehearsal", evidence, matrix_of(plan, evidence), as_json=as_json)
