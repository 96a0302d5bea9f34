"""`parallelchange status`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from parallelchange.cli import options

if TYPE_CHECKING:
    from parallelchange.rollout.observe import Observation

__all__ = ["command"]


@click.command("status", short_help="Where everything stands.")
@options.change
@options.database_url
@options.as_json
def command(change: str, database_url: str | None, as_json: bool) -> int:
    """Show where a change stands: schema, traffic, backfill, evidence, and what would be done next."""
    from parallelchange.cli.show import (
        console,
        decision_document,
        gate_table,
        matrix_document,
        matrix_table,
        print_json,
    )
    from parallelchange.cli.world import open_world
    from parallelchange.rollout.decide import decide
    from parallelchange.rollout.matrix import matrix_now
    from parallelchange.rollout.observe import observe

    with open_world(change, database_url, record=False) as world:
        obs = observe(world)
        decision = decide(world.plan, obs)
        traffic = world.router.describe() if obs.split else {}
        cells = matrix_now(world.plan, obs)
        name, old = world.plan.change.name, world.plan.change.old.name
    if as_json:
        document = decision_document(name, decision, verdict=decision.verdict, weight=obs.weight)
        print_json(
            document
            | {
                "state": obs.state,
                "differences": obs.differences,
                "ready": obs.ready,
                "old_sessions": obs.sessions,
                "record": obs.record,
                "traffic": traffic,
                "problems": obs.routing,
                "matrix": matrix_document(cells),
            }
        )
        return 1 if obs.tampered else 0
    for line in _lines(name, old, obs, traffic):
        click.echo(line)
    console().print(matrix_table(cells))
    click.echo(f"  next      {decision.kind}: {decision.act or ''} {decision.why}")
    if decision.results:
        console().print(gate_table(("", result) for result in decision.results))
    return 1 if obs.tampered else 0


def _lines(name: str, old: str, obs: Observation, traffic: Mapping[str, Any]) -> Iterator[str]:
    """Where the change stands, one thing a line."""
    from parallelchange.model import format_weight

    record = obs.record
    yield f"{name}"
    yield f"  schema    {obs.state}" + (f" ({'; '.join(obs.differences)})" if obs.differences else "")
    weight = format_weight(obs.weight) if obs.weight is not None else obs.split_error
    yield f"  traffic   {weight}" + (f" since {obs.stood:.0f} s" if obs.stood is not None else "")
    if traffic:
        yield f"  split     {traffic['object']} ({traffic['api_version']})"
    for backend in traffic.get("backends", ()):
        told = f", {backend['runs']}, {backend['ready']} ready" if "runs" in backend else ""
        yield f"  backend   {backend['service']} {backend['share']}{told}"
    for problem in obs.routing or ():
        yield f"  problem   {problem}"
    for work, at in ((record.backfills or {}) if record else {}).items():
        yield f"  backfill  {work}: {at['rows']} of {at['total']} rows{', finished' if at['finished'] else ''}"
    for version, ready in obs.ready.items():
        yield f"  copies    {version}: {'unknown' if ready is None else ready} ready"
    if obs.sessions is not None:
        yield f"  sessions  {old}: {len(obs.sessions)}"
    if obs.tampered:
        yield f"  evidence  {obs.tampered}"
    if record and record.aborted:
        yield f"  aborted   {record.aborted}"
