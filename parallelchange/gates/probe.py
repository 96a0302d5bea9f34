"""The version's own proof that it works."""

from __future__ import annotations

from dataclasses import dataclass

from parallelchange.gates.base import Act, Gate, failed, passed, unknown
from parallelchange.model import GateResult, Severity

__all__ = ["GATE", "ProbeFact", "judge"]

GATE = Gate(
    id="probe",
    what="The version's probe, an HTTP check or its tests, succeeds against the live database.",
    why="Only the app itself knows what it does with the data.",
    remedy="read the probe's answer and mend the version",
    example="The new version answers 503: it cannot read back what it wrote.",
    guards=frozenset({Act.SET_WEIGHT, Act.CONTRACT}),
)


@dataclass(frozen=True)
class ProbeFact:
    """What a probe said.

    Args:
        version: App version.
        declared: False when the change file says there is none.
        ok: Whether it succeeded; None when it could not be asked.
        detail: What it said.
    """

    version: str
    declared: bool
    ok: bool | None
    detail: str


def judge(fact: ProbeFact) -> GateResult:
    """It must succeed; a probe that cannot be asked blocks."""
    if not fact.declared:
        note = GATE.finding(
            "waived",
            f"the change file declares no probe for {fact.version}",
            where=fact.version,
            severity=Severity.INFO,
        )
        return GateResult(GATE.id, passed(GATE).verdict, (note,), fact.version)
    if fact.ok is None:
        return unknown(
            GATE,
            GATE.finding("untold", f"{fact.version} cannot be probed: {fact.detail}", where=fact.version),
            version=fact.version,
        )
    if not fact.ok:
        return failed(
            GATE, GATE.finding("failed", f"{fact.version}: {fact.detail}", where=fact.version), version=fact.version
        )
    return passed(GATE, version=fact.version, detail=fact.detail)
