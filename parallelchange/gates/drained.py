"""Nothing of the old version is left that could come back."""

from __future__ import annotations

from dataclasses import dataclass

from parallelchange.gates.base import Act, Gate, failed, passed, unknown
from parallelchange.model import FULL, Finding, GateResult, format_weight

__all__ = ["GATE", "DrainedFact", "judge"]

GATE = Gate(
    id="drained",
    what="The old version has no traffic since the drain time, no ready copy and no database session.",
    why="After contract its statements fail: the columns they name are gone.",
    remedy="stop what is left of the old version",
    example="A cron job of the old version still holds a session.",
    guards=frozenset({Act.CONTRACT}),
)


@dataclass(frozen=True)
class DrainedFact:
    """What is left of the old version.

    Args:
        version: Its name.
        weight: The canary's weight in thousandths; None when it could not be read.
        stood: Seconds that weight has stood; None when nobody recorded it.
        drain: Seconds it must stand.
        ready: Ready copies of the old version; None when it cannot be told.
        sessions: Its database sessions, described; None when it cannot be told.
    """

    version: str
    weight: int | None
    stood: float | None
    drain: float
    ready: int | None
    sessions: tuple[str, ...] | None


def judge(fact: DrainedFact) -> GateResult:
    """All of it must be known and gone."""
    wrong: list[Finding] = []
    untold: list[Finding] = []
    if fact.weight is None:
        untold.append(GATE.finding("weight", "the traffic split cannot be read"))
    elif fact.weight != FULL:
        wrong.append(GATE.finding("weight", f"{fact.version} still has {format_weight(FULL - fact.weight)}"))
    elif fact.stood is None:
        untold.append(GATE.finding("since", "nobody recorded since when it has no traffic"))
    elif fact.stood < fact.drain:
        wrong.append(GATE.finding("since", f"without traffic for {fact.stood:.0f} of {fact.drain:.0f} s"))
    if fact.ready is None:
        untold.append(GATE.finding("copies", f"how many copies of {fact.version} run cannot be told"))
    elif fact.ready:
        wrong.append(GATE.finding("copies", f"{fact.ready} copies of {fact.version} are ready"))
    if fact.sessions is None:
        untold.append(
            GATE.finding(
                "sessions",
                f"the sessions of {fact.version} cannot be told",
                remedy="declare versions.old.application_name in the change file",
            )
        )
    elif fact.sessions:
        wrong.append(
            GATE.finding(
                "sessions",
                f"{len(fact.sessions)} database sessions of {fact.version} are open: {'; '.join(fact.sessions[:5])}",
                where="pg_stat_activity",
            )
        )
    if wrong:
        return failed(GATE, *wrong, *untold, version=fact.version)
    if untold:
        return unknown(GATE, *untold, version=fact.version)
    return passed(GATE, version=fact.version, stood=fact.stood)
