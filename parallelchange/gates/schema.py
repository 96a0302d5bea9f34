"""The schema stands where the act expects it, and the revisions are the planned ones."""

from __future__ import annotations

from dataclasses import dataclass

from parallelchange.gates.base import Act, Gate, failed, passed
from parallelchange.model import GateResult, State

__all__ = ["GATE", "SchemaFacts", "judge"]

GATE = Gate(
    id="schema",
    what="The objects of the change are all there or all absent, as planned, and its revisions hold the planned SQL.",
    why="A half-applied or hand-edited expand keeps the shapes in step for some writes only.",
    remedy="compare the database with `parallelchange plan`; finish or undo by hand what was begun",
    example="The trigger was dropped by hand: new rows of the old version would reach the new one empty.",
    guards=frozenset({Act.EXPAND, Act.BACKFILL, Act.SET_WEIGHT, Act.RETIRE, Act.CONTRACT, Act.REVERT}),
)


@dataclass(frozen=True)
class SchemaFacts:
    """What was read.

    Args:
        state: State of the schema.
        differences: For a partial state, what is there and what is missing.
        revisions: What is wrong with the revision files or with what Alembic has recorded.
        fingerprint: Of the whole schema.
    """

    state: State
    differences: tuple[str, ...]
    revisions: tuple[str, ...]
    fingerprint: str


def judge(facts: SchemaFacts, act: Act) -> GateResult:
    """The state must be the one the act starts from."""
    wanted = State.BASE if act is Act.EXPAND else State.EXPANDED
    findings = []
    if facts.state is not wanted:
        detail = f": {'; '.join(facts.differences)}" if facts.differences else ""
        findings.append(
            GATE.finding("state", f"the schema is {facts.state}, and {act} needs it {wanted}{detail}", where="database")
        )
    findings += [
        GATE.finding("revision", problem, remedy="run `parallelchange emit alembic` again, or undo the edit")
        for problem in facts.revisions
    ]
    if findings:
        return failed(GATE, *findings, fingerprint=facts.fingerprint)
    return passed(GATE, fingerprint=facts.fingerprint, state=facts.state)
