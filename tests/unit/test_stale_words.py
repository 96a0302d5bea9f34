"""What a stale verdict says: what differs, both values, and which objects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.observations import NEW, NOW, PLAN, all_is_well, evidence
from hypothesis import given
from hypothesis import strategies as st

from parallelchange.model import Evidence, Place, State
from parallelchange.rollout.judge import why_stale
from parallelchange.rollout.observe import Observation
from parallelchange.rollout.stale import shortened

A, B = "a" * 64, "b" * 64
FOLDER = PLAN.change.path.parent
VERSION = replace(PLAN.change.new, statements=FOLDER / "recorded" / "v2.json", openapi=Path("/elsewhere/v2.yaml"))
NAMED = replace(PLAN, change=replace(PLAN.change, new=VERSION))


def said(item: Evidence, obs: Observation, **key: Any) -> str:
    return why_stale(NAMED, obs, replace(item, key=replace(item.key, **key)))


LIVE = evidence("prepare", NEW, State.EXPANDED)
COPY = evidence("execute", NEW, State.CONTRACTED, place=Place.COPY)


def test_what_differs_in_nothing_counts() -> None:
    assert said(LIVE, all_is_well(50)) == said(COPY, all_is_well(50)) == ""


V2_JSON, V2_YAML = "recorded/v2.json: aaaaaaaaaaaa… was measured", "/elsewhere/v2.yaml: aaaaaaaaaaaa… was measured"


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ({"plan": A}, f"the plan (aaaaaaaaaaaa… was measured, {PLAN.digest[:12]}… is to be carried out)"),
        ({"statements": A}, f"the recorded statements of {NEW} ({V2_JSON}, corpus-2 is there)"),
        ({"spec": A}, f"the OpenAPI document of {NEW} ({V2_YAML}, none is there)"),
        ({"build": f"sha256:{A}"}, f"the image digest of {NEW} (sha256:aaaaaaaaaaaa… was measured, build-2 runs)"),
        ({"build": ""}, f"the build of {NEW} (none was measured, build-2 runs)"),
        ({"plan": A, "build": "x"}, "; the build of"),
    ],
)
@pytest.mark.parametrize("item", [LIVE, COPY])
def test_both_values_are_told(item: Evidence, key: dict[str, str], says: str) -> None:
    assert says in said(item, all_is_well(50), **key)


def test_objects_are_told_where_they_are_known_and_not_too_many() -> None:
    obs = all_is_well(50)
    assert said(LIVE, obs, fingerprint=A) == "the schema (aaaaaaaaaaaa… was measured, live is live)"
    lines = ("+ column public.t 4 note text", "- view public.v SELECT\n  1", f"+ {'x' * 500}")
    few = replace(obs, schema_changes={A: lines})
    told = said(LIVE, few, fingerprint=A)
    assert told.startswith("the schema: + column public.t 4 note text, - view public.v SELECT 1, + xxx")
    assert len(told) < 200
    many = replace(obs, schema_changes={A: tuple(f"+ table {number}" for number in range(12))})
    assert said(LIVE, many, fingerprint=A).endswith("+ table 3, + table 4 and 7 more")


def test_what_was_measured_in_another_state_says_so() -> None:
    before = replace(evidence("prepare", NEW, State.BASE), state=State.BASE)
    assert why_stale(NAMED, all_is_well(50), before) == "the schema, which was base then and is expanded now"


def test_a_rehearsal_is_told_by_what_its_copy_was_when_it_was_like_the_live_one() -> None:
    obs = all_is_well(50)
    moved = replace(obs, fingerprint=B, schema_changes={"live": ("+ index i",)})
    assert said(COPY, moved) == "the schema: + index i"
    without = replace(obs, evidence=tuple(item for item in obs.evidence if item.key.gate != "rehearsal"))
    assert "that rehearsal has no verdict of its own" in said(COPY, without)
    assert "another rehearsal is the newest" in why_stale(NAMED, obs, replace(COPY, run="another"))


def test_age_and_traffic() -> None:
    obs = all_is_well(50)
    assert why_stale(NAMED, obs, replace(COPY, measured_at=NOW - 3601)) == (
        "it was measured 3601 s ago, and counts for 3600 s"
    )
    assert "traffic moved" in why_stale(NAMED, obs, replace(LIVE, measured_at=NOW - 1001))


@given(st.text(max_size=80))
def test_a_value_is_told_whole_unless_it_is_a_digest(value: str) -> None:
    short = shortened(value)
    assert short == value or (short.endswith("…") and value.startswith(short[:-1]) and len(value) > 24)
    assert shortened(f"registry/shop@sha256:{A}") == "registry/shop@sha256:aaaaaaaaaaaa…"
