"""Nothing of the old version is left that could come back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from parallelchange.calls import Stillness
from parallelchange.gates.base import Act, Gate, failed, unknown
from parallelchange.model import FULL, Finding, GateResult, Severity, Verdict, format_weight
from parallelchange.sessions import Prepared

__all__ = ["GATE", "DrainedFact", "judge"]

GATE = Gate(
    id="drained",
    what="The old version has no traffic since the drain time, no copy that runs or is asked for, no database session"
    " and no prepared transaction, and its statements stand still where the server counts them.",
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
        wanted: Copies of the old version that are asked for, ready or not; None when it cannot be told.
        prepared: Prepared transactions of the database; None when they cannot be told.
        replays: What carries writes of the old shape to others or from others, described.
        calls: Whether the old version's statements stand still; None when nobody looked.
    """

    version: str
    weight: int | None
    stood: float | None
    drain: float
    ready: int | None
    sessions: tuple[str, ...] | None
    seen: bool
    settled: bool
    wanted: int | None
    prepared: tuple[Prepared, ...] | None
    replays: tuple[str, ...]
    calls: Stillness | None


def judge(fact: DrainedFact) -> GateResult:
    """All of it must be known and gone."""
    parts = (*_traffic(fact), *_copies(fact), *_sessions(fact), *_prepared(fact), *_calls(fact))
    notes = tuple(_notes(fact))
    wrong = [finding for finding, known in parts if known]
    untold = [finding for finding, known in parts if not known]
    if wrong:
        return failed(GATE, *wrong, *untold, *notes, version=fact.version)
    if untold:
        return unknown(GATE, *untold, *notes, version=fact.version)
    return GateResult(GATE.id, Verdict.PASS, notes, fact.version, {"stood": fact.stood})


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
    if fact.wanted is None:
        yield GATE.finding("wanted", f"how many copies of {fact.version} are asked for cannot be told"), False
    elif fact.wanted:
        told = f"{fact.wanted} copies of {fact.version} are asked for: they come back, ready now or not"
        yield GATE.finding("wanted", told, remedy="scale what runs it to 0"), True


def _sessions(fact: DrainedFact) -> Iterator[tuple[Finding, bool]]:
    remedy = "see application_name and role of versions.old in the change file"
    if fact.sessions is None:
        yield GATE.finding("sessions", f"the sessions of {fact.version} cannot be told", remedy=remedy), False
    elif fact.sessions:
        shown = "; ".join(fact.sessions[:5])
        told = f"{len(fact.sessions)} database sessions of {fact.version} are open: {shown}"
        yield GATE.finding("sessions", told, where="pg_stat_activity"), True
    elif not fact.seen:
        declared = f"the name or role {fact.version} declares"
        told = f"no session was ever seen under {declared}, so that there is none says nothing"
        yield GATE.finding("never-seen", told, remedy=remedy), False


def _prepared(fact: DrainedFact) -> Iterator[tuple[Finding, bool]]:
    """Nobody needs a session to commit one, and until then it holds its locks."""
    if fact.prepared is None:
        yield GATE.finding("prepared", "prepared transactions cannot be told"), False
    for item in fact.prepared or ():
        told = f"prepared transaction {item.gid!r} of role {item.owner} is open for {item.age:.0f} s"
        remedy = "COMMIT PREPARED or ROLLBACK PREPARED it"
        yield GATE.finding("prepared", told, where="pg_prepared_xacts", remedy=remedy), True


def _calls(fact: DrainedFact) -> Iterator[tuple[Finding, bool]]:
    calls, where = fact.calls, "pg_stat_statements"
    if calls is None:
        yield GATE.finding("calls", f"whether statements of {fact.version} are still sent was not looked at"), False
        return
    for told in calls.grew:
        remedy = "find out who sends it, and stop that"
        yield (
            GATE.finding("calls", f"statements of {fact.version} are still sent: {told}", where=where, remedy=remedy),
            True,
        )
    if calls.watched is None or calls.grew:
        return
    if calls.why:
        yield (
            GATE.finding("uncounted", calls.why, where=where, remedy="see `doctor`; then wait for the drain time"),
            False,
        )
    elif calls.seconds is None or calls.seconds < fact.drain:
        told = (
            f"statements of {fact.version} are known to stand still for {calls.seconds or 0:.0f} of {fact.drain:.0f} s"
        )
        yield GATE.finding("young", told, where=where, remedy="wait, and run the same command again"), False


def _notes(fact: DrainedFact) -> Iterator[Finding]:
    calls, where = fact.calls, "pg_stat_statements"
    if calls is not None and calls.watched is None:
        told = f"whether statements of {fact.version} are still sent is not counted here: {calls.why}"
        yield GATE.finding("calls", told, where=where, remedy="see `doctor`", severity=Severity.INFO)
    elif calls is not None and not calls.why:
        never = (calls.watched or 0) - calls.matched
        told = (
            f"{calls.watched} statements are {fact.version}'s alone, and {never} of them the server has never counted"
        )
        yield GATE.finding("calls", told, where=where, remedy="nothing is to be done", severity=Severity.INFO)
    for told in fact.replays:
        message = f"{told} carries writes of the old shape: whoever reads or sends them must be ready for the new one"
        yield GATE.finding("replays", message, remedy="see to its other end", severity=Severity.WARNING)
