"""Every recorded statement of a version still has a plan, and not one that reads a whole large table anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from parallelchange.gates.base import Act, Gate, failed, unknown
from parallelchange.gates.prepare import PlanFact, StatementFact, nothing_recorded, place, shown, since
from parallelchange.model import Finding, GateResult, Severity, Verdict

__all__ = ["GATE", "judge", "keep", "kept", "plans"]

GATE = Gate(
    id="plan",
    what="Each recorded statement of the version has a plan, whatever its parameters are.",
    why="The planner asks more than the parser: privileges and functions; and a lost index shows in plans first.",
    remedy="change the operation so that the version's statements keep working, or give them their index back",
    example="`SELECT * FROM orders WHERE ref = $1` after the role lost SELECT on it. A full scan only warns.",
    guards=frozenset({Act.EXPAND, Act.SET_WEIGHT, Act.CONTRACT}),
)


def plans(facts: Iterable[StatementFact] | None) -> dict[str, PlanFact]:
    """Each statement's plan by the statement's id, to hold those of a later state against."""
    return {fact.id: fact.plan for fact in facts or () if fact.plan and fact.plan.text}


def keep(found: Mapping[str, PlanFact]) -> dict[str, list[Any]]:
    """Plans as they are kept in evidence: in full where a large table is read, else the names of their indexes."""
    return {
        id_: [fact.text if fact.large else f"by {', '.join(fact.indexes)}", list(fact.indexes), list(fact.scans)]
        for id_, fact in found.items()
        if fact.large or fact.indexes
    }


def kept(measured: Mapping[str, Any]) -> dict[str, PlanFact]:
    """Plans out of the figures of evidence that `keep` went into; empty where there are none."""
    return {
        str(id_): PlanFact(str(text), tuple(map(str, indexes)), tuple(map(str, scans)))
        for id_, (text, indexes, scans) in dict(measured.get("plans") or {}).items()
    }


def judge(
    version: str, facts: Sequence[StatementFact] | None, before: Mapping[str, PlanFact] | None = None
) -> GateResult:
    """Each one that was taken must have a plan; one that got worse is told.

    Args:
        version: App version.
        facts: Its statements; None when the version has no corpus.
        before: Plans of the state before by the statements' ids; None where there are none.
    """
    if not facts:
        return nothing_recorded(GATE, version)
    refused: list[Finding] = []
    untold: list[Finding] = []
    worse: list[Finding] = []
    planned = 0
    for fact in facts:
        if fact.unasked or fact.error or (fact.plan and fact.plan.unasked):
            continue
        where = place(version, fact)
        if fact.plan is None or fact.plan.untold:
            why = fact.plan.untold if fact.plan else "the server was not asked"
            untold.append(GATE.finding("untold", f"{shown(fact.sql)} has no plan: {why}", where=where))
        elif fact.plan.error is not None:
            told = f"{shown(fact.sql)} of {version} cannot be planned: {fact.plan.error}{since(fact)}"
            refused.append(GATE.finding("refused", told, where=where))
        else:
            planned += 1
            worse += _worse(fact, fact.plan, (before or {}).get(fact.id), where)
    measured = {"statements": len(facts), "planned": planned}
    if refused:
        return failed(GATE, *refused, *untold, *worse, version=version, **measured)
    if untold:
        return unknown(GATE, *untold, *worse, version=version, **measured)
    # A slower plan still gives the right answer: whether that matters is for the metrics to say.
    return GateResult(GATE.id, Verdict.PASS, tuple(worse), version, measured)


def _worse(fact: StatementFact, now: PlanFact, before: PlanFact | None, where: str) -> list[Finding]:
    """What a plan has lost since the state before."""
    if before is None:
        return []
    found = []
    scans = [table for table in now.scans if table not in before.scans]
    gone = [index for index in before.indexes if index not in now.indexes and index not in now.existing]
    both = f"before: {before.text}; now: {now.text}{since(fact)}"
    if scans:
        told = f"{shown(fact.sql)} now reads all of {', '.join(scans)}; {both}"
        found.append(_warn("scan", told, where))
    if gone:
        told = f"{shown(fact.sql)} has lost index {', '.join(gone)}; {both}"
        found.append(_warn("index", told, where))
    return found


def _warn(kind: str, told: str, where: str) -> Finding:
    remedy = "add the index it needs to the new shape, if the table is read often"
    return GATE.finding(kind, told, where=where, remedy=remedy, severity=Severity.WARNING)
