"""Every recorded statement of a version gives the columns that it gave when it was recorded."""

from __future__ import annotations

from collections.abc import Sequence

from parallelchange.gates.base import Act, Gate, failed, passed, unknown
from parallelchange.gates.prepare import StatementFact, asked_of, nothing_recorded, place, shown, since
from parallelchange.model import GateResult, Severity

__all__ = ["GATE", "judge"]

GATE = Gate(
    id="shape",
    what="Each recorded statement of the version gives the same columns, of the same types, in the same order.",
    why="A session that has prepared a statement gets an error once its result has another shape.",
    remedy="name the columns in the statement instead of *",
    example="`SELECT *` gains a column: live sessions get 'cached plan must not change result type'.",
    guards=frozenset({Act.EXPAND, Act.SET_WEIGHT, Act.CONTRACT}),
)


def judge(version: str, facts: Sequence[StatementFact] | None) -> GateResult:
    """Each one that was taken must have the columns it was recorded with.

    Args:
        version: App version.
        facts: Its statements; None when the version has no corpus.
    """
    if not facts:
        return nothing_recorded(GATE, version)
    changed, untold = [], []
    asked = [fact for fact in facts if not fact.unasked and fact.error is None]
    for fact in asked:
        where = place(version, fact)
        if fact.held and fact.found == fact.recorded:
            told = f"{shown(fact.sql)} fails in sessions that were open before: {fact.held}"
            changed.append(GATE.finding("held", told + since(fact), where=where))
        elif fact.found is None:
            told = f"{shown(fact.sql)}: its columns could not be told"
            untold.append(GATE.finding("untold", told, where=where, severity=Severity.WARNING))
        elif fact.found != fact.recorded:
            told = f"{shown(fact.sql)} gave ({', '.join(fact.recorded)}) and now gives ({', '.join(fact.found)})"
            changed.append(GATE.finding("changed", told + since(fact), where=where))
    measured = {**asked_of(facts), "asked": len(asked)}
    if changed:
        return failed(GATE, *changed, *untold, version=version, **measured)
    if untold:
        return unknown(GATE, *untold, version=version, **measured)
    return passed(GATE, version=version, **measured)
