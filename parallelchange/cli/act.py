"""What the verbs that carry out one act have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from parallelchange.gates.base import Act

if TYPE_CHECKING:
    from parallelchange.rollout.decide import Decision
    from parallelchange.rollout.observe import Observation
    from parallelchange.rollout.world import Event

__all__ = ["progress_teller", "run_act"]


def progress_teller() -> Callable[[Event], None]:
    """Tell progress with rate and time left: one line a second where nobody watches."""
    import time

    from parallelchange.cli.show import note

    began: list[tuple[float, int]] = []
    last = [0.0]

    def tell(event: Event) -> None:
        if event.kind == "applied":
            held = event.data["exclusive_seconds"] * 1000
            note(f"{event.what}: {event.data['seconds']:.2f} s, ACCESS EXCLUSIVE held {held:.0f} ms")
        if event.kind != "progress":
            return
        done, total, now = event.data["done"], event.data["total"], time.monotonic()
        if not began:
            began.append((now, done))
        if now - last[0] < 1.0 and done != total:
            return
        last[0] = now
        share = f" of {total} ({min(1.0, done / total):.0%})" if total else ""
        rate = (done - began[0][1]) / max(now - began[0][0], 0.001)
        pace = f", {rate:,.0f} rows/s" if rate else ""
        left = f", {max(0, total - done) / rate:.0f} s left" if total and rate else ""
        note(f"{event.what}: {done}{share} rows{pace}{left}")

    return tell


def run_act(
    act: Act, change: str, database_url: str | None, *, as_json: bool, already: Callable[[Observation, Decision], bool]
) -> int:
    """Do one act if the decision says so; else say why not.

    Args:
        act: The act.
        change: Path or name of the change.
        database_url: As given by a flag.
        as_json: Print one JSON document.
        already: Whether an observation shows it done.
    """
    from parallelchange.cli.show import show_decision
    from parallelchange.cli.world import open_world
    from parallelchange.rollout.advance import advance
    from parallelchange.rollout.decide import Decision, Kind, decide
    from parallelchange.rollout.run import look, whole

    with open_world(change, database_url, tell=progress_teller()) as world, world.ledger.fenced():
        obs = whole(look(world))
        decision = decide(world.plan, obs)
        name = world.plan.change.name
        if decision.kind is Kind.DO and decision.act is act:
            advance(world, obs, decision)
            return show_decision(
                name,
                Decision(Kind.DONE, f"{act} is done", results=decision.results),
                as_json=as_json,
                weight=obs.weight,
                passed=True,
            )
        if already(obs, decision):
            return show_decision(
                name,
                Decision(Kind.DONE, f"{act} was done before; nothing was changed"),
                as_json=as_json,
                weight=obs.weight,
                passed=True,
            )
        if decision.kind is Kind.DO:
            first = f"not now: first `{decision.act}` ({decision.why})"
            decision = Decision(Kind.BLOCKED, first, results=decision.results, findings=decision.findings)
        return show_decision(name, decision, as_json=as_json, weight=obs.weight, passed=False)
