"""Every recorded statement of a version still means what it meant when it was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from parallelchange.gates.base import Act, Gate, failed, passed, unknown
from parallelchange.model import GateResult, Severity

__all__ = ["GATE", "StatementFact", "judge"]

GATE = Gate(
    id="statements",
    what="Each recorded statement prepares on the schema as it stands and gives the columns it gave before.",
    why="A statement that no longer parses fails at once; one with other columns fails in sessions that prepared it.",
    remedy="change the operation so that the version's statements keep working, or record the version again",
    example="`SELECT *` gains a column: live sessions get 'cached plan must not change result type'.",
    guards=frozenset({Act.EXPAND, Act.SET_WEIGHT, Act.CONTRACT}),
)


@dataclass(frozen=True)
class StatementFact:
    """What became of one recorded statement.

    Args:
        sql: The statement.
        where: Where it was recorded.
        error: What PostgreSQL said to it; None when it took it.
        recorded: Its columns when it was recorded, as `name type`.
        found: Its columns now; None when they could not be told.
    """

    sql: str
    where: str
    error: str | None
    recorded: tuple[str, ...]
    found: tuple[str, ...] | None


def judge(version: str, facts: Sequence[StatementFact] | None) -> GateResult:
    """Each one must be taken, and keep its columns.

    Args:
        version: App version.
        facts: Its statements; None when the version has no corpus.
    """
    if not facts:
        finding = GATE.finding(
            "none",
            f"no statement of {version} is recorded, so nothing shows that it works",
            where=version,
            remedy=f"run `parallelchange record {version} -- COMMAND` with the app's tests",
        )
        return unknown(GATE, finding, version=version, statements=0)
    findings = []
    for fact in facts:
        where = f"{version}: {fact.where}" if fact.where else version
        short = " ".join(fact.sql.split())[:160]
        if fact.error:
            findings.append(GATE.finding("refused", f"`{short}` fails: {fact.error}", where=where))
        elif fact.found is None:
            findings.append(
                GATE.finding(
                    "untold", f"`{short}`: its columns could not be told", where=where, severity=Severity.WARNING
                )
            )
        elif fact.found != fact.recorded:
            findings.append(
                GATE.finding(
                    "shape",
                    f"`{short}` gave ({', '.join(fact.recorded)}) and now gives ({', '.join(fact.found)})",
                    where=where,
                    remedy="name the columns in the statement instead of *",
                )
            )
    if any(finding.severity is Severity.ERROR for finding in findings):
        return failed(GATE, *findings, version=version, statements=len(facts))
    if findings:
        return unknown(GATE, *findings, version=version, statements=len(facts))
    return passed(GATE, version=version, statements=len(facts))
