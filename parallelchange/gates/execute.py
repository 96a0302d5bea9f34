"""Every recorded statement of a version runs, in the order it was sent, on a copy of this very schema."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from parallelchange.gates.base import Act, Gate, failed, passed, unknown
from parallelchange.gates.prepare import shown
from parallelchange.model import Finding, GateResult, State

__all__ = ["GATE", "Executed", "Outcome", "PhaseRun", "broken", "judge"]

GATE = Gate(
    id="execute",
    what="The recorded statements run on the copy, in their order, in a transaction that is rolled back.",
    why="Only execution finds NOT NULL, CHECK and foreign key failures, and nobody executes writes in production.",
    remedy="change the operation so that the version's statements keep working, or record the version again",
    example="The old version's nightly `INSERT INTO export SELECT *` fails once a column is added.",
    guards=frozenset({Act.EXPAND, Act.SET_WEIGHT, Act.CONTRACT}),
)

_OF_THE_ROWS = frozenset({"23503", "23505", "42P06", "42P07", "42701", "42710", "42723", "P0002"})
"""About what happens to be there (a parent, a duplicate, a table made already), which the recording had otherwise."""

_OF_THE_MOMENT = frozenset({"57014", "55P03", "40001", "40P01"})
"""Timeouts and conflicts: they come and go, and neither prove nor refute anything."""

_DENIED = "42501"

_CATALOG = re.compile(r"\b(?:from|join)\s+(?:pg_catalog\.)?pg_\w|\binformation_schema\.", re.IGNORECASE)
"""What reads the catalogs reads another number of rows after any change."""


_NOTHING = frozenset({"0", "f", "NULL"})


@dataclass(frozen=True)
class Outcome:
    """One execution of a statement.

    Args:
        error: What PostgreSQL said; None when it worked.
        sqlstate: Its code.
        rows: Rows it returned or changed; None when it has no such number.
        written: Rows it changed on the way, for what is not answered with their number.
        columns: Its result's columns, as `name type`.
        answer: The one row of a statement that counts or adds up, as text: its number of rows tells nothing.
        idle: Whether it is a write that found no row to change, and so showed nothing.
        late: What the deferred constraints said at the end of a transaction that was rolled back.
        recorded: The code it failed with when it was recorded; empty when it worked then.
        skipped: Why it cannot be run here; empty when it was.
        exempt: Whether no change of a schema can touch it.
        sent: The data that a COPY was given, which was made up: no log has it.
        target: A digest of all that decides which rows a COPY may bring.
    """

    error: str | None = None
    sqlstate: str | None = None
    rows: int | None = None
    written: int | None = None
    columns: tuple[str, ...] = ()
    answer: str | None = None
    idle: bool = False
    late: str | None = None
    recorded: str = ""
    skipped: str = ""
    exempt: bool = False
    sent: bytes | None = None
    target: str = ""


@dataclass(frozen=True)
class Executed:
    """One recorded statement, run on the copy as often as it was sent.

    Args:
        id: Its id in the corpus.
        sql: Its text.
        where: Where it was recorded.
        outcomes: One for each time it was sent, in that order.
        cause: The DDL after which it fails, where that is known.
    """

    id: str
    sql: str
    where: str
    outcomes: tuple[Outcome, ...]
    cause: str = ""


@dataclass(frozen=True)
class PhaseRun:
    """One version in one state of the schema, on the copy.

    Args:
        version: App version.
        state: State of the schema.
        executed: Its statements.
        before: The same in the state before, where the version could run in that; None where it could not.
        role: The role whose privileges they ran with, as the version's sessions do; None where it is not known.
    """

    version: str
    state: State
    executed: tuple[Executed, ...]
    before: tuple[Executed, ...] | None = None
    role: str | None = None


class _Says(StrEnum):
    """What one execution says of the statement."""

    WORKS = "works"
    NOTHING = "nothing"  # and nothing need be shown
    UNPROVEN = "unproven"
    DIFFERS = "differs"  # it may be the change's doing, or the clock's
    REFUSED = "refused"
    CHANGED = "changed"


_BROKEN = (_Says.REFUSED, _Says.CHANGED)


def judge(run: PhaseRun) -> GateResult:
    """What worked before must work now, and do the same; what was never seen working is unknown."""
    wrong: list[Finding] = []
    open_: list[Finding] = []
    works = False
    before = {item.id: item.outcomes for item in run.before or ()}
    for item in run.executed:
        heard = _heard(item, before.get(item.id, ()) if run.before is not None else None)
        said = dict(reversed(heard))  # the first of each kind
        works = works or _Says.WORKS in said
        worst = next((says for says in (*_BROKEN, _Says.DIFFERS) if says in said), None)
        if worst:
            since = f"; since {shown(item.cause)}" if item.cause and worst in _BROKEN else ""
            does = "fails" if worst is _Says.REFUSED else "does not do the same"
            when = "before any change" if run.state is State.BASE else f"once {run.state}"
            told = f"{shown(item.sql)} of {run.version} {does} {when}: {said[worst]}{since}"
            where = f"{run.version}: {item.where}" if item.where else run.version
            finding = GATE.finding(worst, told, where=where, remedy=_remedy(run, worst, said[worst]))
            (wrong if worst in _BROKEN else open_).append(finding)
        elif _Says.WORKS not in said and (_Says.UNPROVEN in said or not heard):
            open_.append(_unproven(run, item, said.get(_Says.UNPROVEN, "it was never seen sent")))
    executed = sum(len(item.outcomes) for item in run.executed)
    if wrong:
        # Another number of rows may come of what failed before.
        open_ = [finding for finding in open_ if finding.id != f"{GATE.id}.{_Says.DIFFERS}"]
        return failed(GATE, *wrong, *open_, version=run.version, executed=executed)
    if not works and not open_:
        # Where each one only failed as it did when it was recorded, nothing shows that the version can do anything.
        told = f"no statement of {run.version} was {'seen to work' if executed else 'executed'}"
        remedy = f"run `parallelchange record {run.version} -- COMMAND` with the app's tests"
        open_.append(GATE.finding("none", told, where=run.version, remedy=remedy))
    if run.role is None:
        told = f"whose privileges {run.version} has is not known: its statements ran with ours, which may be more"
        remedy = f"name the database role of its sessions: `role` of {run.version} in the change file"
        open_.append(GATE.finding("role", told, where=run.version, remedy=remedy))
    if open_:
        return unknown(GATE, *open_, version=run.version, executed=executed)
    return passed(GATE, version=run.version, executed=executed)


def _remedy(run: PhaseRun, worst: _Says, why: str) -> str:
    """What to do; empty for the gate's own."""
    whom = f"the role {run.role}" if run.role else "the version's role"
    if worst is _Says.DIFFERS:
        return "see why; a statement whose answer depends on the clock or on chance cannot be compared"
    if run.state is not State.BASE:
        grant = f"grant {whom} what it lacks on the whole table: a grant on single columns does not reach new ones"
        return grant if f"({_DENIED})" in why else ""
    return f"it is not the change's doing: give {whom} what it needs, or record the version as it works with that role"


def _unproven(run: PhaseRun, item: Executed, why: str) -> Finding:
    return GATE.finding(
        "unproven",
        f"{shown(item.sql)} of {run.version} worked in none of its {len(item.outcomes)} sendings: {why}",
        where=f"{run.version}: {item.where}" if item.where else run.version,
        remedy="record it with rows that are in the database",
    )


def broken(run: PhaseRun) -> dict[str, int]:
    """The statements that broke in this state: id to the first sending that did."""
    before = {item.id: item.outcomes for item in run.before or ()}
    found = {}
    for item in run.executed:
        heard = _heard(item, before.get(item.id, ()) if run.before is not None else None)
        first = next((index for index, (says, _) in enumerate(heard) if says in _BROKEN), None)
        if first is not None:
            found[item.id] = first
    return found


def _heard(item: Executed, before: tuple[Outcome, ...] | None) -> list[tuple[_Says, str]]:
    """What each sending says, with its reason."""
    known = before if before is not None and len(before) == len(item.outcomes) else None
    if before is not None and known is None:
        # Two runs of one corpus have the same sendings; else there is nothing to hold them against.
        return [(_Says.UNPROVEN, "the state before ran other statements")] * max(1, len(item.outcomes))
    return [_says(item.sql, now, known[index] if known else None) for index, now in enumerate(item.outcomes)]


def _says(sql: str, now: Outcome, before: Outcome | None) -> tuple[_Says, str]:
    if now.exempt:
        return _Says.NOTHING, ""
    if now.recorded and not now.skipped:
        return _failed_then(now, before)
    if now.skipped or (before is not None and (before.error is not None or before.skipped)):
        # It did not work before either: not the change's doing.
        return _Says.UNPROVEN, now.skipped or f"it did not work before: {before and (before.error or before.skipped)}"
    if now.error is not None:
        why = f"{now.error} ({now.sqlstate})" if now.sqlstate else now.error
        of_the_rows = before is None and now.sqlstate in _OF_THE_ROWS
        return (_Says.UNPROVEN if of_the_rows or now.sqlstate in _OF_THE_MOMENT else _Says.REFUSED), why
    differs = _differs(sql, now, before) if before is not None else None
    if differs is None and before is not None and now.sent is not None and now.target != before.target:
        # A row like those that are there fits whatever was made to fit them.
        return _Says.DIFFERS, "the data it brings is not in the recording, and where it goes to has changed"
    idle = (_Says.UNPROVEN, "it changed no row") if now.idle else None
    return differs or idle or (_Says.WORKS, "")


def _failed_then(now: Outcome, before: Outcome | None) -> tuple[_Says, str]:
    """It failed when it was recorded, and the version lives with that; not with another error in its place."""
    if now.error is None or now.sqlstate == now.recorded:
        return _Says.NOTHING, ""
    why = f"{now.error} ({now.sqlstate}), where {now.recorded} was recorded"
    same = before is not None and before.sqlstate == now.recorded
    return (_Says.REFUSED if same and now.sqlstate not in _OF_THE_MOMENT else _Says.UNPROVEN), why


def _differs(sql: str, now: Outcome, before: Outcome) -> tuple[_Says, str] | None:
    """What it did otherwise than in the state before."""
    if now.late and not before.late:
        return _Says.REFUSED, f"at the end of its transaction: {now.late}"
    if now.columns != before.columns:
        gave, gives = ", ".join(before.columns), ", ".join(now.columns)
        return _Says.CHANGED, f"it gave ({gave}) and now gives ({gives})"
    for noun, was, is_ in (("rows", before.rows, now.rows), ("written rows", before.written, now.written)):
        if was and is_ == 0 and not _CATALOG.search(sql):
            return _Says.CHANGED, f"{was} {noun} before, none now"
        if was != is_ and not _CATALOG.search(sql):
            return _Says.DIFFERS, f"{was} {noun} before, {is_} now"
    if now.answer != before.answer and not _CATALOG.search(sql):
        nothing = now.answer is not None and not set(now.answer.split()) - _NOTHING
        return (_Says.CHANGED if nothing else _Says.DIFFERS), f"it gave {before.answer} before, {now.answer} now"
    return None
