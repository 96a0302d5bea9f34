"""The matrix: each version in each state of the schema that it lives through, and how far it is proven there. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from parallelchange.gates import LIVE, ON_COPY
from parallelchange.model import Evidence, Place, State, Verdict
from parallelchange.plan import Plan
from parallelchange.rollout.judge import cells, copied, counted
from parallelchange.rollout.observe import ALL_VERSIONS, Observation

__all__ = ["Cell", "Standing", "matrix_now", "matrix_of"]

_MISSING = "missing"
_STALE = "stale"


class Standing(StrEnum):
    """How far a version is proven in a state."""

    PROVEN = "proven"
    FAILED = "failed"
    STALE = "stale"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Cell:
    """One version in one state.

    Args:
        version: The version.
        state: The state of the schema.
        layers: Each layer that must be proven, with `pass`, `fail`, `unknown`, `stale` or `missing`; those measured on
            the live database end in `(live)`.
    """

    version: str
    state: State
    layers: Mapping[str, str]

    @property
    def standing(self) -> Standing:
        """All its layers joined; only when every one of them passes is it proven."""
        found = set(self.layers.values())
        if Verdict.FAIL in found:
            return Standing.FAILED
        if _STALE in found:
            return Standing.STALE
        return Standing.PROVEN if found == {Verdict.PASS} else Standing.UNKNOWN


def matrix_of(plan: Plan, evidence: Sequence[Evidence]) -> tuple[Cell, ...]:
    """The matrix of one rehearsal.

    Args:
        plan: The plan.
        evidence: What the rehearsal measured.
    """
    found = {(e.key.gate, e.key.version, e.state): e.result.verdict for e in evidence if e.key.place is Place.COPY}
    return tuple(
        Cell(
            version,
            state,
            {gate: found.get((gate, whose, state), _MISSING) for gate, whose in _layers(plan, version, state)},
        )
        for version, state in cells(plan)
    )


def matrix_now(plan: Plan, obs: Observation) -> tuple[Cell, ...]:
    """The matrix by the evidence that counts now; in the state of the moment with what is measured live.

    Args:
        plan: The plan.
        obs: What was seen, the recorded evidence too.
    """
    return tuple(Cell(version, state, _now(plan, obs, version, state)) for version, state in cells(plan))


def _now(plan: Plan, obs: Observation, version: str, state: State) -> dict[str, str]:
    asked = [(gate, gate, whose, Place.COPY) for gate, whose in _layers(plan, version, state)]
    if state is obs.state:
        live = [gate for gate in LIVE if not (gate == "laws" and state is State.CONTRACTED)]  # one shape has no laws
        asked += [(f"{gate} (live)", gate, ALL_VERSIONS if gate == "laws" else version, Place.LIVE) for gate in live]
    layers: dict[str, str] = {}
    for name, gate, whose, place in asked:
        found, stale = counted(plan, obs, gate, whose, state, place)
        layers[name] = _MISSING if found is None else _STALE if stale else found.result.verdict
    return layers


def _layers(plan: Plan, version: str, state: State) -> list[tuple[str, str]]:
    """The layers of a cell on a copy, each with the version its evidence speaks of."""
    return [
        (gate, whose)
        for gate in ON_COPY
        for whose, when in copied(plan, gate)
        if when is state and whose in (version, ALL_VERSIONS)
    ]
