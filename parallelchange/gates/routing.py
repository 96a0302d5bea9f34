"""The split's backends can take the traffic that is about to reach them."""

from __future__ import annotations

from dataclasses import dataclass

from parallelchange.gates.base import Act, Gate, failed, passed, unknown
from parallelchange.model import GateResult

__all__ = ["GATE", "RoutingFact", "judge"]

GATE = Gate(
    id="routing",
    what="Backends have ready endpoints, the root's ports and pods of their own, and nothing overrides the split.",
    why="Traffic sent to a backend that cannot take it fails, and a share that something else decides proves nothing.",
    remedy="mend what it names; `parallelchange doctor` shows the whole way of a request",
    example="A ServiceProfile of an earlier TrafficSplit is left over: Linkerd routes by it and not by the HTTPRoute.",
    guards=frozenset({Act.SET_WEIGHT}),
)


@dataclass(frozen=True)
class RoutingFact:
    """What was found on the way of a request.

    Args:
        problems: What stands against more traffic, in sentences; None when it could not be looked at.
        error: Why it could not.
    """

    problems: tuple[str, ...] | None
    error: str = ""


def judge(fact: RoutingFact) -> GateResult:
    """Looked at, and nothing found."""
    if fact.problems is None:
        return unknown(GATE, GATE.finding("untold", fact.error or "the backends could not be looked at"))
    if fact.problems:
        return failed(GATE, *(GATE.finding("problem", problem) for problem in fact.problems))
    return passed(GATE)
