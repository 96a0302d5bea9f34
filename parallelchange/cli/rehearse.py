"""`parallelchange rehearse`."""

from __future__ import annotations

import click

from parallelchange.cli import options

__all__ = ["command"]


@click.command("rehearse", short_help="Run the whole change on a scratch PostgreSQL.")
@options.change
@options.database_url
@click.option("--record/--no-record", default=True, help="Keep the evidence in the ledger of the database.")
@options.as_json
def command(change: str, database_url: str | None, record: bool, as_json: bool) -> int:
    """Copy the schema and some rows, then expand, backfill, verify both versions, contract, verify the new one."""
    from parallelchange.cli.show import console, evidence_document, gate_table, note, print_json, show_findings
    from parallelchange.cli.world import open_world
    from parallelchange.model import Verdict, combine
    from parallelchange.rollout.world import Event

    def tell(event: Event) -> None:
        if event.kind == "rehearsal":
            note(event.what)

    with open_world(change, database_url, tell=tell, record=record) as world:
        evidence = list(world.rehearse())
        if record:
            world.ledger.add_evidence(evidence)
        name = world.plan.change.name
    verdict = combine(item.result.verdict for item in evidence)
    if as_json:
        print_json(evidence_document(name, evidence))
    else:
        console().print(gate_table((item.state, item.result) for item in evidence))
        click.echo(f"{name}: rehearsal: {verdict}")
        show_findings(dict.fromkeys(f for item in evidence for f in item.result.findings))
    return 0 if verdict is Verdict.PASS else 1
