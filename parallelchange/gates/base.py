"""A gate is data about itself and a pure function from facts to a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from parallelchange.model import Finding, GateResult, Severity, Verdict

__all__ = ["Act", "Gate", "failed", "passed", "unknown"]


class Act(StrEnum):
    """What a rollout does, and what gates stand before."""

    REHEARSE = "rehearse"  # run the whole change on a scratch copy
    EXPAND = "expand"  # make the new shape
    BACKFILL = "backfill"  # fill it
    VERIFY = "verify"  # measure both versions on the live data
    SET_WEIGHT = "set-weight"  # move traffic
    RETIRE = "retire"  # stop the old version's copies
    CONTRACT = "contract"  # leave only the new shape
    ABORT = "abort"  # all traffic back to the old version
    REVERT = "revert"  # undo expand
    APPROVE = "approve"  # let a pipeline's own task set a weight
    ADOPT = "adopt"  # record what a killed process, or a pipeline's own task, has done


@dataclass(frozen=True)
class Gate:
    """What a gate is, for people; its page is rendered from this.

    Args:
        id: Stable name.
        what: What it looks at.
        why: What goes wrong without it.
        remedy: What to do when it blocks.
        example: A case it blocks, in a sentence.
        guards: The acts it stands before.
    """

    id: str
    what: str
    why: str
    remedy: str
    example: str
    guards: frozenset[Act]

    def finding(
        self, kind: str, message: str, *, where: str = "", remedy: str = "", severity: Severity = Severity.ERROR
    ) -> Finding:
        """A finding of this gate, `gate.kind`."""
        return Finding(f"{self.id}.{kind}", severity, message, where, remedy or self.remedy)


def passed(gate: Gate, *, version: str | None = None, **measured: object) -> GateResult:
    """The gate lets pass."""
    return GateResult(gate.id, Verdict.PASS, (), version, measured)


def failed(gate: Gate, *findings: Finding, version: str | None = None, **measured: object) -> GateResult:
    """The gate blocks: something is wrong."""
    return GateResult(gate.id, Verdict.FAIL, findings, version, measured)


def unknown(gate: Gate, *findings: Finding, version: str | None = None, **measured: object) -> GateResult:
    """The gate blocks: nothing proves that all is well."""
    return GateResult(gate.id, Verdict.UNKNOWN, findings, version, measured)
