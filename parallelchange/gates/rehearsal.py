"""The change's own steps went through on a scratch copy of this very schema."""

from __future__ import annotations

from collections.abc import Sequence

from parallelchange.gates.base import Act, Gate, failed, passed
from parallelchange.model import Finding, GateResult, State

__all__ = ["GATE", "judge"]

GATE = Gate(
    id="rehearsal",
    what="Expand, backfill, migrate and contract went through on a copy, and each left what it should.",
    why="A step that fails half-way through a change fails in front of users.",
    remedy="run `parallelchange rehearse` and mend what it names",
    example="Contract drops a column that a view made by hand still names.",
    guards=frozenset({Act.EXPAND, Act.SET_WEIGHT, Act.CONTRACT}),
)


def judge(state: State, findings: Sequence[Finding]) -> GateResult:
    """The state was reached, and nothing was found wrong in it.

    Args:
        state: The state of the copy's schema that was to be reached.
        findings: What kept it from being reached, or is wrong with it.
    """
    return failed(GATE, *findings, state=state) if findings else passed(GATE, state=state)
