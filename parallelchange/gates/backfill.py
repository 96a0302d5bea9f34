"""The backfill went over every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from parallelchange.gates.base import Act, Gate, failed, passed, unknown
from parallelchange.model import GateResult

__all__ = ["GATE", "BackfillFact", "judge"]

GATE = Gate(
    id="backfill",
    what="Each pass of the backfill is recorded as finished.",
    why="The new version would read rows whose new shape is still empty.",
    remedy="run `parallelchange backfill`; it goes on where it stopped",
    example="The backfill was killed after 40,000 of 200,000 rows.",
    guards=frozenset({Act.SET_WEIGHT, Act.RETIRE, Act.CONTRACT}),
)


@dataclass(frozen=True)
class BackfillFact:
    """One pass.

    Args:
        id: Its id.
        rows: Rows filled so far; None when it was never begun.
        finished: Whether it went to the end.
    """

    id: str
    rows: int | None
    finished: bool


def judge(facts: Sequence[BackfillFact]) -> GateResult:
    """All passes must have finished."""
    findings = []
    for fact in facts:
        if fact.rows is None:
            findings.append(GATE.finding("not-begun", f"{fact.id} was never begun", where=fact.id))
        elif not fact.finished:
            findings.append(GATE.finding("unfinished", f"{fact.id} stopped after {fact.rows} rows", where=fact.id))
    measured = {fact.id: fact.rows for fact in facts}
    if findings:
        return failed(GATE, *findings, passes=measured)
    if not facts:
        return unknown(GATE, GATE.finding("none", "no pass is planned or recorded"))
    return passed(GATE, passes=measured)
