"""The versions that are live are the change's two and no third one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from parallelchange.gates.base import Act, Gate, failed, unknown
from parallelchange.model import Finding, GateResult, Severity, Verdict
from parallelchange.sessions import CLIENT_BACKEND, WALSENDER, Client, Connected, Identity, Owner, Session, whose

__all__ = ["GATE", "VersionsFact", "judge"]

GATE = Gate(
    id="versions",
    what="Every session on the database, and all that runs behind the Service, is one of the two versions', the"
    " toolkit's own, or allowed under `clients`.",
    why="What is proven of the two versions says nothing of a third one that works on the same tables.",
    remedy="stop it, give it its version's application_name, or name it under `clients` in the change file",
    example="A worker that was never deployed anew still runs the version before the old one.",
    guards=frozenset({Act.EXPAND, Act.SET_WEIGHT, Act.CONTRACT}),
)

_SHOWN = 10
"""Kinds of strangers that are told one by one."""


@dataclass(frozen=True)
class VersionsFact:
    """Who is live.

    Args:
        old: By what the old version's sessions are told.
        new: By what the new version's are.
        clients: What may be connected besides.
        connected: What is connected; None when it could not be looked at.
        others: What runs behind the Service and its backends and is neither version, described; None when it cannot
            be told.
    """

    old: Identity
    new: Identity
    clients: tuple[Client, ...]
    connected: Connected | None
    others: tuple[str, ...] | None


def judge(fact: VersionsFact, act: Act) -> GateResult:
    """Every session and every copy must be told.

    The new version's sessions before expand are a warning: it is not made for that schema, and has no traffic.
    """
    wrong = [GATE.finding("third", told) for told in fact.others or ()]
    untold = []
    if fact.others is None:
        untold.append(GATE.finding("copies", "what runs behind the Service cannot be told", remedy="see `doctor`"))
    if fact.connected is None:
        untold.append(GATE.finding("unseen", "who is connected to the database cannot be told"))
        return failed(GATE, *wrong, *untold) if wrong else unknown(GATE, *untold)
    told = {s: whose(s, (fact.old, fact.new), fact.clients) for s in fact.connected.sessions if _is_client(s)}
    strangers = [session for session, (owner, _) in told.items() if owner is Owner.STRANGER]
    doubtful = [session for session, (owner, _) in told.items() if owner is Owner.UNTOLD]
    wrong += _grouped("stranger", strangers, fact)
    untold += _grouped("untold", doubtful, fact)
    counts = Counter(version or str(owner) for owner, version in told.values())
    notes = (*_notes(fact.connected), *(_early(fact, counts) if act is Act.EXPAND else ()))
    if wrong:
        return failed(GATE, *wrong, *untold, *notes, sessions=dict(counts))
    if untold:
        return unknown(GATE, *untold, *notes, sessions=dict(counts))
    return GateResult(GATE.id, Verdict.PASS, notes, None, {"sessions": dict(counts)})


def _is_client(session: Session) -> bool:
    return session.kind in (CLIENT_BACKEND, None)


def _grouped(kind: str, sessions: list[Session], fact: VersionsFact) -> Iterator[Finding]:
    """One finding for each name, role and address."""
    groups: dict[tuple[str, str, str | None], list[Session]] = {}
    for session in sorted(sessions, key=lambda s: (s.application_name, s.role, s.address or "")):
        groups.setdefault((session.application_name, session.role, session.address), []).append(session)
    for (name, role, address), found in list(groups.items())[:_SHOWN]:
        hidden = any(session.kind is None for session in found)
        place = "an address that our role may not see" if hidden else address or "a local socket"
        since = min((session.since for session in found if session.since), default="")
        message = (
            f"{len(found)} session{'s' if found[1:] else ''} of application_name {name!r}, role {role}, from {place}"
            + (f", since {since}" if since else "")
            + f", cannot be told to be {fact.old.version}'s or {fact.new.version}'s"
        )
        remedy = "GRANT pg_read_all_stats to our role, to tell what it is; or " + GATE.remedy if hidden else ""
        yield GATE.finding(kind, message + _why(found[0], fact), where="pg_stat_activity", remedy=remedy)
    if len(groups) > _SHOWN:
        yield GATE.finding(kind, f"and {len(groups) - _SHOWN} more kinds of session", where="pg_stat_activity")


def _why(session: Session, fact: VersionsFact) -> str:
    """What speaks against the nearest version."""
    for version in (fact.old, fact.new):
        if version.application_name == session.application_name:
            return f": {version.version} is declared with role {version.role}"
    if any(
        version.application_name is None and version.role in (None, session.role) for version in (fact.old, fact.new)
    ):
        return ": a version declares no application_name by which its sessions are told"
    return ""


def _notes(connected: Connected) -> Iterator[Finding]:
    """What is left out, and why."""
    left = [session for session in connected.sessions if not _is_client(session)]
    senders = [session for session in left if session.kind == WALSENDER]
    if senders:
        message = f"{len(senders)} replication connections are left out: they read the log and send no statements"
        yield GATE.finding("replication", message, where="pg_stat_activity", severity=Severity.INFO)
    for session in left:
        if session.kind != WALSENDER:
            message = (
                f"{session.kind} (pid {session.pid}, role {session.role}) is at work here: what it runs is not shown"
            )
            remedy = "see that it runs nothing that needs the old shape"
            yield GATE.finding("worker", message, remedy=remedy, severity=Severity.WARNING, where="pg_stat_activity")


def _early(fact: VersionsFact, counts: Counter[str]) -> Iterator[Finding]:
    early = counts[fact.new.version]
    if early:
        yield GATE.finding(
            "early",
            f"{early} sessions of {fact.new.version} are open before expand, on a schema it is not made for",
            where="pg_stat_activity",
            remedy=f"start {fact.new.version} after expand",
            severity=Severity.WARNING,
        )
