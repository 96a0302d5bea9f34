"""The change's own steps went through on a scratch copy of this very schema."""

from __future__ import annotations

from collections.abc import Sequence

from parallelchange.gates.base import Act, Gate, failed, unknown
from parallelchange.model import Finding, GateResult, Severity, State, Verdict

__all__ = ["GATE", "judge"]

GATE = Gate(
    id="rehearsal",
    what="Expand, backfill, migrate and contract went through on a copy, and each left what it should.",
    why="A step that fails half-way through a change fails in front of users.",
    remedy="run `parallelchange rehearse` and mend what it names",
    example="Contract drops a column that a view made by hand still names.",
    guards=frozenset({Act.EXPAND, Act.SET_WEIGHT, Act.CONTRACT}),
)


def judge(state: State, findings: Sequence[Finding], unlike: Sequence[Finding] = ()) -> GateResult:
    """The state was reached, nothing was found wrong in it, and the copy is like the database.

    Args:
        state: The state of the copy's schema that was to be reached.
        findings: What kept it from being reached, or is wrong with it.
        unlike: What the copy has otherwise than its database: then it proves nothing of it; a warning is told.
    """
    if findings:
        return failed(GATE, *findings, *unlike, state=state)
    if any(finding.severity is Severity.ERROR for finding in unlike):
        return unknown(GATE, *unlike, state=state)
    return GateResult(GATE.id, Verdict.PASS, tuple(unlike), None, {"state": state})
