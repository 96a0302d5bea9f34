"""The matrix: what counts now, cell by cell."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.observations import NEW, OLD, PLAN, all_is_well

from parallelchange.model import Evidence, GateResult, Place, State, Verdict
from parallelchange.rollout.matrix import Cell, Standing, matrix_now, matrix_of
from parallelchange.rollout.observe import Observation

CELLS = [(OLD, State.BASE), (OLD, State.EXPANDED), (NEW, State.EXPANDED), (NEW, State.CONTRACTED)]
COPY = ("rehearsal", "prepare", "shape", "execute")


def standings(cells: tuple[Cell, ...]) -> list[Standing]:
    assert [(cell.version, cell.state) for cell in cells] == CELLS
    return [cell.standing for cell in cells]


def test_all_is_proven() -> None:
    cells = matrix_now(PLAN, all_is_well(0))
    assert standings(cells) == [Standing.PROVEN] * 4
    assert set(COPY) <= set(cells[0].layers)
    assert "roundtrip" not in cells[0].layers
    assert {"roundtrip", "probe (live)", "laws (live)"} <= set(cells[1].layers)
    assert not any("live" in layer for layer in (*cells[0].layers, *cells[3].layers)), "not the state of the moment"


def test_nothing_is_proven_by_nothing() -> None:
    assert standings(matrix_now(PLAN, replace(all_is_well(0), evidence=()))) == [Standing.UNKNOWN] * 4
    assert standings(matrix_of(PLAN, ())) == [Standing.UNKNOWN] * 4


def without(obs: Observation, gate: str, version: str, verdict: Verdict | None) -> Observation:
    """The observation with another verdict of a gate on the expanded copy, or with none."""

    def is_it(item: Evidence) -> bool:
        return (item.key.gate, item.key.version, item.state, item.key.place) == (
            gate, version, State.EXPANDED, Place.COPY,
        )  # fmt: skip

    kept = tuple(item for item in obs.evidence if not is_it(item))
    changed = tuple(
        replace(item, result=GateResult(gate, verdict, (), version)) for item in obs.evidence if is_it(item) and verdict
    )
    return replace(obs, evidence=kept + changed)


@pytest.mark.parametrize(
    ("verdict", "standing", "word"),
    [
        (Verdict.FAIL, Standing.FAILED, "fail"),
        (Verdict.UNKNOWN, Standing.UNKNOWN, "unknown"),
        (None, Standing.UNKNOWN, "missing"),
    ],
)
def test_one_layer_is_enough(verdict: Verdict | None, standing: Standing, word: str) -> None:
    for gate in ("prepare", "execute", "roundtrip"):
        obs = replace(without(all_is_well(0), gate, NEW, verdict), watched=0.0)
        cells = matrix_now(PLAN, obs)
        assert standings(cells) == [Standing.PROVEN, Standing.PROVEN, standing, Standing.PROVEN]
        assert cells[2].layers[gate] == word


def test_what_no_longer_counts_is_stale() -> None:
    obs = replace(all_is_well(0), corpora={OLD: "another corpus", NEW: "corpus-2"})
    assert standings(matrix_now(PLAN, obs)) == [Standing.STALE, Standing.STALE, Standing.PROVEN, Standing.PROVEN]
    old = replace(all_is_well(0), now=all_is_well(0).now + 1e6)
    assert standings(matrix_now(PLAN, old)) == [Standing.STALE] * 4


def test_a_rehearsal_fills_what_it_measured() -> None:
    ran = [item for item in all_is_well(0).evidence if item.key.place is Place.COPY]
    assert standings(matrix_of(PLAN, ran)) == [Standing.PROVEN] * 4
    ran = [item for item in ran if item.state is not State.CONTRACTED]
    assert standings(matrix_of(PLAN, ran)) == [*[Standing.PROVEN] * 3, Standing.UNKNOWN]
