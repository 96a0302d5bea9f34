"""The stage was watched long enough."""

from __future__ import annotations

from dataclasses import dataclass

from parallelchange.gates.base import Act, Gate, failed, passed, unknown
from parallelchange.model import GateResult

__all__ = ["GATE", "SoakFact", "judge"]

GATE = Gate(
    id="soak",
    what="The weight has stood for the stage's soak time.",
    why="Failures that need time or load to show would be met at the next, larger share.",
    remedy="wait",
    example="25 % was set 40 s ago and the soak is 2 min.",
    guards=frozenset({Act.SET_WEIGHT, Act.RETIRE, Act.CONTRACT}),
)


@dataclass(frozen=True)
class SoakFact:
    """The stage that stands.

    Args:
        weight: Its weight in thousandths.
        stood: Seconds since it was set; None when nobody recorded it.
        soak: Seconds it must stand.
        settled: Whether the mesh is seen to route by the split.
    """

    weight: int
    stood: float | None
    soak: float
    settled: bool


def judge(fact: SoakFact) -> GateResult:
    """Before the first stage there is nothing to soak."""
    if fact.weight == 0:
        return passed(GATE, weight=0)
    if fact.stood is None:
        return unknown(
            GATE,
            GATE.finding(
                "untold", "nobody recorded when this weight was set", remedy="set it with `parallelchange promote`"
            ),
        )
    if not fact.settled:
        told = "the mesh is not seen to follow the split"
        return unknown(GATE, GATE.finding("mesh", told, remedy="see whether the mesh runs"), weight=fact.weight)
    if fact.stood < fact.soak:
        return failed(
            GATE,
            GATE.finding("short", f"this weight has stood {fact.stood:.0f} of {fact.soak:.0f} s"),
            weight=fact.weight,
            stood=fact.stood,
        )
    return passed(GATE, weight=fact.weight, stood=fact.stood)
