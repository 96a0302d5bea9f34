"""Every recorded statement of a version runs, in the order it was sent, on a copy of this very schema."""

from __future__ import annotations

from dataclasses import dataclass

from parallelchange.gates.base import Act, Gate, failed, passed, unknown
from parallelchange.gates.prepare import shown
from parallelchange.model import Finding, GateResult, State

__all__ = ["GATE", "Executed", "Outcome", "PhaseRun", "judge"]

GATE = Gate(
    id="execute",
    what="The recorded statements run on the copy, in their order, in transactions that are rolled back.",
    why="Only execution finds NOT NULL, CHECK and foreign key failures, and nobody executes writes in production.",
    remedy="change the operation so that the version's statements keep working, or record the version again",
    example="The old version's nightly `INSERT INTO export SELECT *` fails once a column is added.",
    guards=frozenset({Act.EXPAND, Act.SET_WEIGHT, Act.CONTRACT}),
)


_OF_THE_ROWS = {"23503", "23505"}
"""foreign_key_violation, unique_violation: about the rows at hand, and the copy has other rows than the recording."""


@dataclass(frozen=True)
class Outcome:
    """One execution of a statement.

    Args:
        error: What PostgreSQL said; None when it worked.
        sqlstate: Its code.
        idle: Whether it is a write that found no row to change, and so showed nothing.
    """

    error: str | None = None
    sqlstate: str | None = None
    idle: bool = False


@dataclass(frozen=True)
class Executed:
    """One recorded statement, run on the copy as often as it was sent.

    Args:
        id: Its id in the corpus.
        sql: Its text.
        where: Where it was recorded.
        outcomes: One for each time it was sent.
    """

    id: str
    sql: str
    where: str
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class PhaseRun:
    """One version in one state of the schema, on the copy.

    Args:
        version: App version.
        state: State of the schema.
        executed: Its statements.
        before: The same in the state before, where the version could run in that; None where it could not.
    """

    version: str
    state: State
    executed: tuple[Executed, ...]
    before: tuple[Executed, ...] | None = None


def judge(run: PhaseRun) -> GateResult:
    """What worked before must work now; what was never seen working is unknown."""
    refused: list[Finding] = []
    unproven: list[Finding] = []
    before = {item.id: item.outcomes for item in run.before or ()}
    for item in run.executed:
        worked = 0
        for index, outcome in enumerate(item.outcomes):
            known = before.get(item.id)
            if known and known[index].error is not None:
                continue  # it did not work before either: not the change's doing
            if outcome.error is None:
                worked += not outcome.idle
            elif known or outcome.sqlstate not in _OF_THE_ROWS:
                refused.append(
                    GATE.finding(
                        "refused",
                        f"{shown(item.sql)} of {run.version} fails once {run.state}: {outcome.error}",
                        where=item.where,
                    )
                )
                worked += 1
                break
        if not worked:
            idle = "it changed no row" if any(o.idle for o in item.outcomes) else "its parameters are not recorded"
            why = next((o.error for o in item.outcomes if o.error), idle)
            unproven.append(
                GATE.finding(
                    "unproven",
                    f"{shown(item.sql)} of {run.version} worked with none of its recorded parameters: {why}",
                    where=item.where,
                    remedy="record it with rows that are in the database",
                )
            )
    executed = sum(len(item.outcomes) for item in run.executed)
    if refused:
        return failed(GATE, *refused, *unproven, version=run.version, executed=executed)
    if not executed and not unproven:
        told = f"no statement of {run.version} was executed"
        remedy = f"run `parallelchange record {run.version} -- COMMAND` with the app's tests"
        unproven.append(GATE.finding("none", told, where=run.version, remedy=remedy))
    if unproven:
        return unknown(GATE, *unproven, version=run.version, executed=executed)
    return passed(GATE, version=run.version, executed=executed)
