"""Nothing of the old version is left that could come back."""

from __future__ import annotations

from collections.abc import Iterator
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
        seen: Whether sessions were ever seen under the name it declares.
        settled: Whether the mesh is seen to route by the split.
    """

    version: str
    weight: int | None
    stood: float | None
    drain: float
    ready: int | None
    sessions: tuple[str, ...] | None
    seen: bool
    settled: bool


def judge(fact: DrainedFact) -> GateResult:
    """All of it must be known and gone."""
    parts = (*_traffic(fact), *_copies(fact), *_sessions(fact))
    wrong = [finding for finding, known in parts if known]
    untold = [finding for finding, known in parts if not known]
    if wrong:
        return failed(GATE, *wrong, *untold, version=fact.version)
    if untold:
        return unknown(GATE, *untold, version=fact.version)
    return passed(GATE, version=fact.version, stood=fact.stood)


def _traffic(fact: DrainedFact) -> Iterator[tuple[Finding, bool]]:
    """Findings, each with whether it is known (and so a fail) or could not be told."""
    if fact.weight is None:
        yield GATE.finding("weight", "the traffic split cannot be read"), False
    elif fact.weight != FULL:
        yield GATE.finding("weight", f"{fact.version} still has {format_weight(FULL - fact.weight)}"), True
    elif fact.stood is None:
        yield GATE.finding("since", "nobody recorded since when it has no traffic"), False
    elif fact.stood < fact.drain:
        yield GATE.finding("since", f"without traffic for {fact.stood:.0f} of {fact.drain:.0f} s"), True
    elif not fact.settled:
        yield (
            GATE.finding("mesh", "the mesh is not seen to follow the split", remedy="see whether the mesh runs"),
            False,
        )


def _copies(fact: DrainedFact) -> Iterator[tuple[Finding, bool]]:
    if fact.ready is None:
        yield GATE.finding("copies", f"how many copies of {fact.version} run cannot be told"), False
    elif fact.ready:
        yield GATE.finding("copies", f"{fact.ready} copies of {fact.version} are ready"), True


def _sessions(fact: DrainedFact) -> Iterator[tuple[Finding, bool]]:
    remedy = "see versions.old.application_name in the change file"
    if fact.sessions is None:
        yield GATE.finding("sessions", f"the sessions of {fact.version} cannot be told", remedy=remedy), False
    elif fact.sessions:
        shown = "; ".join(fact.sessions[:5])
        told = f"{len(fact.sessions)} database sessions of {fact.version} are open: {shown}"
        yield GATE.finding("sessions", told, where="pg_stat_activity"), True
    elif not fact.seen:
        told = f"no session was ever seen under the name {fact.version} declares, so that there is none says nothing"
        yield GATE.finding("never-seen", told, remedy=remedy), False
