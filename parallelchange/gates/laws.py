"""The laws of the change hold for every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parallelchange.gates.base import Act, Gate, failed, passed, unknown
from parallelchange.model import GateResult

__all__ = ["GATE", "LawFact", "judge"]

GATE = Gate(
    id="laws",
    what="For every row the old shape can be had back from the new one: old IS NOT DISTINCT FROM down(new).",
    why="A row that breaks the law reads differently through the two versions: rolling back loses data.",
    remedy="mend `up` and `down` so that they lose nothing, or mend the rows",
    example="`down` joins names with one space: 'Mary  Ann' with two comes back as another name.",
    guards=frozenset({Act.EXPAND, Act.SET_WEIGHT, Act.RETIRE, Act.CONTRACT}),
)


@dataclass(frozen=True)
class LawFact:
    """One law held against the rows.

    Args:
        id: The law's id.
        says: The law in words.
        table: The table.
        rows: Rows looked at.
        broken: Rows that break it; None when it could not be told.
        examples: Some of them.
        error: Why it could not be told.
        foretold: True when the new shape was computed because it is not there yet.
    """

    id: str
    says: str
    table: str
    rows: int
    broken: int | None
    examples: Sequence[Mapping[str, Any]] = ()
    error: str | None = None
    foretold: bool = False


def judge(facts: Sequence[LawFact]) -> GateResult:
    """No row may break any law; a law that could not be measured blocks."""
    broken, untold = [], []
    for fact in facts:
        if fact.broken is None:
            untold.append(GATE.finding("untold", f"{fact.id}: {fact.error}", where=fact.table))
        elif fact.broken:
            shown = "; ".join(str(dict(row)) for row in fact.examples[:3])
            when = "would break" if fact.foretold else "break"
            broken.append(
                GATE.finding(
                    "broken",
                    f"{fact.broken} of {fact.rows} rows {when} the law that {fact.says}: {shown}",
                    where=fact.table,
                )
            )
    rows = {fact.table: fact.rows for fact in facts}
    if broken:
        return failed(GATE, *broken, *untold, rows=rows, laws=len(facts))
    if untold or not facts:
        nothing = GATE.finding("none", "no law was measured", where="change")
        return unknown(GATE, *(untold or [nothing]), rows=rows, laws=len(facts))
    return passed(GATE, rows=rows, laws=len(facts))
