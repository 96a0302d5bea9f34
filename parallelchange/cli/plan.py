"""`parallelchange plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from parallelchange.cli import options

if TYPE_CHECKING:
    from parallelchange.model import Statement
    from parallelchange.plan import Plan

__all__ = ["command"]


@click.command("plan", short_help="The paired plan: phases beside stages, gates, SQL and locks.")
@options.change
@options.database_url
@click.option("--sql", is_flag=True, help="Print the SQL only, phase by phase.")
@options.as_json
def command(change: str, database_url: str | None, sql: bool, as_json: bool) -> None:
    """Print what a change does: phases beside stages, the gates between, and every statement with its lock."""
    from parallelchange.adapters.planning import load_plan
    from parallelchange.cli.show import print_json
    from parallelchange.cli.world import settings_for

    path, settings = settings_for(change, database_url)
    plan = load_plan(path, settings.database_url)
    if as_json:
        print_json(_document(plan))
    elif sql:
        _print_sql(plan)
    else:
        _print_tables(plan)


def _phases(plan: Plan) -> list[tuple[str, tuple[Statement, ...]]]:
    return [(name, getattr(plan, name)) for name in ("expand", "migrate", "contract", "revert")]


def _document(plan: Plan) -> dict[str, object]:
    from parallelchange.model import Phase, format_weight
    from parallelchange.plan import steps

    statements = {
        name: [
            {"sql": s.sql, "lock": s.lock.title, "table": str(s.table) if s.table else None, "why": s.why}
            for s in getattr(plan, name)
        ]
        for name in ("expand", "migrate", "contract", "revert")
    }
    return {
        "change": plan.change.name,
        "digest": plan.digest,
        "revisions": {phase.value: plan.revision(phase) for phase in Phase},
        "steps": [
            {"act": s.act, "phase": s.phase, "weight": format_weight(s.weight), "gates": s.gates, "text": s.text}
            for s in steps(plan)
        ],
        "statements": statements,
        "backfills": plan.backfills,
        "laws": [{"id": law.id, "table": str(law.table), "says": law.says, "holds": law.holds} for law in plan.laws],
    }


def _print_sql(plan: Plan) -> None:
    for name, statements in _phases(plan):
        click.echo(f"-- {name}")
        for statement in statements:
            click.echo(f"{statement.sql};")
        click.echo()


def _print_tables(plan: Plan) -> None:
    from rich.table import Table
    from rich.text import Text

    from parallelchange.cli.show import console
    from parallelchange.model import format_weight
    from parallelchange.plan import steps

    out = console()
    table = Table(title=f"{plan.change.name}: phases beside stages", title_justify="left", box=None, pad_edge=False)
    for heading in ("phase", "weight", "act", "what", "gates before it"):
        table.add_column(heading, overflow="fold")
    for step in steps(plan):
        table.add_row(step.phase, format_weight(step.weight), step.act, Text(step.text), ", ".join(step.gates) or "-")
    out.print(table)
    for name, statements in _phases(plan):
        out.print()
        listing = Table(title=f"{name}", title_justify="left", box=None, pad_edge=False)
        for heading in ("lock", "statement", "why"):
            listing.add_column(heading, overflow="fold")
        for statement in statements:
            listing.add_row(statement.lock.title, Text(_short(statement.sql)), Text(statement.why))
        out.print(listing)
    for law in plan.laws:
        out.print(Text(f"\nlaw {law.id} ({law.table}): {law.holds}"))


def _short(sql: str) -> str:
    head, tag, _ = sql.partition("$parallelchange$")
    return f"{head}$parallelchange$ … (plan --sql shows it)" if tag else sql
