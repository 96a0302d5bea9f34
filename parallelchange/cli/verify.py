"""`parallelchange verify`."""

from __future__ import annotations

import click

from parallelchange.cli import options

__all__ = ["command"]


@click.command("verify", short_help="Measure both versions on the live data; record evidence.")
@options.change
@options.database_url
@options.as_json
def command(change: str, database_url: str | None, as_json: bool) -> int:
    """Measure both versions on the live data and record the evidence that `gate` reads. Nothing is executed."""
    from parallelchange.cli.show import console, evidence_document, gate_table, print_json, show_findings
    from parallelchange.cli.world import open_world
    from parallelchange.model import Verdict, combine
    from parallelchange.rollout.measure import measure
    from parallelchange.rollout.run import look

    with open_world(change, database_url) as world, world.ledger.fenced():
        evidence = measure(world, look(world))
        name = world.plan.change.name
    verdict = combine(item.result.verdict for item in evidence)
    if as_json:
        print_json(evidence_document(name, evidence))
    else:
        console().print(gate_table((item.state, item.result) for item in evidence))
        click.echo(f"{name}: verify: {verdict}")
        show_findings(f for item in evidence for f in item.result.findings)
    return 0 if verdict is Verdict.PASS else 1
