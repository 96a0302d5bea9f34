"""`parallelchange rollout`."""

from __future__ import annotations

import click

from parallelchange.cli import options

__all__ = ["command"]


@click.command("rollout", short_help="The whole loop, from where it stands.")
@options.change
@options.database_url
@click.option("--local", "local", is_flag=True, help="On the embedded local mesh: refuse any other router.")
@click.option("--again", is_flag=True, help="Start over although it was aborted.")
@click.option("--stand-by", is_flag=True, help="In a cluster: wait while another pod runs it, then go on.")
@options.as_json
def command(change: str, database_url: str | None, local: bool, again: bool, stand_by: bool, as_json: bool) -> int:
    """Go on from wherever the change stands until it is contracted, or a gate blocks. Killed, it can be run again."""
    from parallelchange.cli.act import progress_teller
    from parallelchange.cli.show import note, show_decision
    from parallelchange.cli.world import open_world, weight_now
    from parallelchange.errors import UsageError
    from parallelchange.rollout.decide import Kind
    from parallelchange.rollout.run import rollout
    from parallelchange.rollout.world import Event

    progress, last = progress_teller(), [""]

    def tell(event: Event) -> None:
        if event.kind == "decision":
            decision = event.data["decision"]
            line = f"{decision.kind}: {decision.act or ''} {decision.why}"
            # While it waits the figures grow; one line for each reason is enough.
            if decision.kind is not Kind.WAIT or last[0] != line.split(":", maxsplit=1)[0] + decision.why.split(":")[0]:
                note(line)
            last[0] = line.split(":", maxsplit=1)[0] + decision.why.split(":")[0]
        elif event.kind in ("rehearsal", "conflict"):
            note(event.what)
        elif event.kind == "waiting":
            if last[0] != event.what:
                note(event.what)
            last[0] = event.what
        else:
            progress(event)

    with open_world(change, database_url, tell=tell, stand_by=stand_by) as world:
        router = world.plan.change.traffic.router
        if local and router != "local":
            raise UsageError(f"the change's router is {router}, not local", hint="leave out --local")
        decision = rollout(world, again=again)
        name = world.plan.change.name
        weight = weight_now(world)
    return show_decision(name, decision, as_json=as_json, weight=weight, passed=decision.kind is Kind.DONE)
