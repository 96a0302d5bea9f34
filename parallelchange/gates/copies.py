"""Both versions have copies, and it is known what they run."""

from __future__ import annotations

from dataclasses import dataclass

from parallelchange.gates.base import Act, Gate, failed, passed, unknown
from parallelchange.model import GateResult

__all__ = ["GATE", "CopiesFact", "judge"]

GATE = Gate(
    id="copies",
    what="Each version that goes on serving has a ready copy, and what it runs is known.",
    why="Traffic sent to a version without a copy fails, and proof of another build proves nothing.",
    remedy="start the version, all copies with one build",
    example="The new version crashed after it was verified.",
    guards=frozenset({Act.SET_WEIGHT, Act.CONTRACT}),
)


@dataclass(frozen=True)
class CopiesFact:
    """The copies of one version.

    Args:
        version: App version.
        ready: How many are ready; None when it cannot be told.
        build: Digest of what they run; None when it cannot be told or they differ.
    """

    version: str
    ready: int | None
    build: str | None


def judge(fact: CopiesFact) -> GateResult:
    """At least one, of a known build."""
    if fact.ready is None:
        told = f"how many copies of {fact.version} run cannot be told"
        return unknown(GATE, GATE.finding("untold", told, where=fact.version), version=fact.version)
    if fact.ready < 1:
        told = f"no copy of {fact.version} is ready"
        return failed(GATE, GATE.finding("none", told, where=fact.version), version=fact.version)
    if not fact.build:
        told = f"what the copies of {fact.version} run cannot be told, or they differ"
        return unknown(GATE, GATE.finding("build", told, where=fact.version), version=fact.version)
    return passed(GATE, version=fact.version, ready=fact.ready)
