"""What one version writes the other one reads as it should, and neither overwrites what the other wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from parallelchange.gates.base import Act, Gate, failed, passed, unknown
from parallelchange.model import GateResult, Severity

__all__ = ["GATE", "RoundTripFact", "judge"]

GATE = Gate(
    id="roundtrip",
    what="Rows that the version writes on the expanded copy read as they should in both shapes, whoever writes next.",
    why="A value that `up` refuses or loses is met in production by the first user who types it.",
    remedy="mend `up` and `down`, or give the column a domain whose CHECK tells which values it can have",
    example="The old version writes a name with two spaces, and the new one reads it with one.",
    guards=frozenset({Act.EXPAND, Act.SET_WEIGHT, Act.CONTRACT}),
)


@dataclass(frozen=True)
class RoundTripFact:
    """What came of the rows that one version wrote to one table.

    Args:
        table: The table.
        rows: Rows it was let write.
        refused: Rows the server refused, as it would have before the change.
        broken: What went wrong with the smallest row that shows it; None when nothing did.
        untaken: A row that was refused while both shapes live and may be taken after contract; empty for none.
        why: Why no row could be written, or why it could not be tried to the end.
    """

    table: str
    rows: int
    refused: int = 0
    broken: str | None = None
    why: str = ""
    untaken: str = ""


def judge(version: str, facts: Sequence[RoundTripFact]) -> GateResult:
    """No row may go wrong; where none was written, or the trial broke off, nothing is known.

    Args:
        version: The version that writes.
        facts: One for each table of the change.
    """
    wrong = [GATE.finding("broken", fact.broken, where=fact.table) for fact in facts if fact.broken]
    open_ = [
        GATE.finding(
            "none" if not fact.rows else "untold",
            f"{version}: {fact.why or 'no row was taken'}",
            where=fact.table,
            remedy="put some rows into the table that show what its values are like",
        )
        for fact in facts
        if not fact.broken and (fact.why or not fact.rows)
    ]
    if not facts:
        open_.append(GATE.finding("none", f"{version}: no table was written to", where=version))
    measured = {"rows": sum(fact.rows for fact in facts), "refused": sum(fact.refused for fact in facts)}
    if wrong:
        return failed(GATE, *wrong, *open_, version=version, **measured)
    if open_:
        return unknown(GATE, *open_, version=version, **measured)
    told = [GATE.finding("untaken", f.untaken, where=f.table, severity=Severity.INFO) for f in facts if f.untaken]
    return replace(passed(GATE, version=version, **measured), findings=tuple(told))
