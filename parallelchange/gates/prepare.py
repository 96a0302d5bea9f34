"""Every recorded statement of a version is still taken by the schema as it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from parallelchange.gates.base import Act, Gate, failed, passed, unknown
from parallelchange.model import GateResult

__all__ = ["GATE", "PlanFact", "StatementFact", "asked_of", "judge", "nothing_recorded", "place", "shown", "since"]

GATE = Gate(
    id="prepare",
    what="Each recorded statement of the version prepares on the schema as it stands.",
    why="A statement that no longer parses fails at once, in every copy of the version.",
    remedy="change the operation so that the version's statements keep working, or record the version again",
    example="`SELECT name FROM customers` after somebody dropped the column by hand.",
    guards=frozenset({Act.EXPAND, Act.SET_WEIGHT, Act.CONTRACT}),
)


_LONGEST = 160


@dataclass(frozen=True)
class PlanFact:
    """How the server would run one statement.

    Args:
        text: Its plan on one line, without costs; empty when there is none.
        indexes: The indexes that the plan reads.
        scans: The large tables that the plan reads from end to end.
        large: Whether it reads a large table at all.
        error: What PostgreSQL said instead of giving a plan; None when it gave one.
        untold: Why that says nothing of the version's own sessions; empty when it does.
        unasked: Why the server was not asked here; empty when it was.
        existing: Every index there is, whatever the plan reads; one set for all statements.
    """

    text: str = ""
    indexes: tuple[str, ...] = ()
    scans: tuple[str, ...] = ()
    large: bool = False
    error: str | None = None
    untold: str = ""
    unasked: str = ""
    existing: frozenset[str] = field(default_factory=frozenset, repr=False, compare=False)


@dataclass(frozen=True)
class StatementFact:
    """What the server says of one recorded statement without running it.

    Args:
        id: Its id in the corpus.
        sql: Its text.
        where: Where it was recorded.
        recorded: Its columns when it was recorded, as `name type`.
        error: What PostgreSQL said to it; None when it took it.
        found: Its columns now; None when they were not told.
        unasked: Why the server was not asked here; empty when it was.
        cause: The DDL after which it fails, where that is known.
        plan: How the server would run it; None when it was not asked or did not take it.
        held: What PostgreSQL says to it in a session that is open since the state before, and has held it prepared if
            the version's do; empty when it works there, or there is no such session.
    """

    id: str
    sql: str
    where: str
    recorded: tuple[str, ...] = ()
    error: str | None = None
    found: tuple[str, ...] | None = None
    unasked: str = ""
    cause: str = ""
    plan: PlanFact | None = None
    held: str = ""


def shown(sql: str) -> str:
    """A statement in a message: on one line, and not all of a long one."""
    text = " ".join(sql.split())
    return f"`{text[: _LONGEST - 1]}…`" if len(text) > _LONGEST else f"`{text}`"


def since(fact: StatementFact) -> str:
    """The DDL after which it is so, for a message."""
    return f"; since {shown(fact.cause)}" if fact.cause else ""


def place(version: str, fact: StatementFact) -> str:
    """Where a finding about it is: the version, and where it was recorded."""
    return f"{version}: {fact.where}" if fact.where else version


def asked_of(facts: Sequence[StatementFact]) -> dict[str, object]:
    """Figures for a verdict: how many the server was asked about, and why not about the others."""
    left = Counter(fact.unasked for fact in facts if fact.unasked)
    told: dict[str, object] = {"statements": len(facts), "asked": len(facts) - left.total()}
    return {**told, "unasked": dict(left.most_common())} if left else told


def nothing_recorded(gate: Gate, version: str) -> GateResult:
    """No corpus, or an empty one, proves nothing."""
    finding = gate.finding(
        "none",
        f"no statement of {version} is recorded, so nothing shows that it works",
        where=version,
        remedy=f"run `parallelchange record {version} -- COMMAND` with the app's tests",
    )
    return unknown(gate, finding, version=version, statements=0)


def judge(version: str, facts: Sequence[StatementFact] | None) -> GateResult:
    """Each one that was asked about must be taken.

    Args:
        version: App version.
        facts: Its statements; None when the version has no corpus.
    """
    if not facts:
        return nothing_recorded(GATE, version)
    findings = [
        GATE.finding(
            "refused",
            f"{shown(fact.sql)} of {version} fails: {fact.error}{since(fact)}",
            where=place(version, fact),
        )
        for fact in facts
        if fact.error
    ]
    if findings:
        return failed(GATE, *findings, version=version, **asked_of(facts))
    return passed(GATE, version=version, **asked_of(facts))
