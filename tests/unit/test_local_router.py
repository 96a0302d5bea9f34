"""The local router: a TrafficSplit in a file, set by compare-and-swap."""

from __future__ import annotations

import json
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelchange.adapters.local_files import locked
from parallelchange.adapters.local_router import LocalRouter, TrafficSplit
from parallelchange.errors import Busy, Unavailable, UsageError


def router(folder: Path) -> LocalRouter:
    return LocalRouter(folder / "trafficsplit.json", service="shop", stable="shop-stable", canary="shop-canary")


def rewrite(path: Path, change: Any) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_new_split_gives_everything_to_stable(tmp_path: Path) -> None:
    made = router(tmp_path).create()
    assert (made.weight, dict(made.backends)) == (0, {"shop-stable": 1000, "shop-canary": 0})
    document = json.loads((tmp_path / "trafficsplit.json").read_text())
    assert (document["apiVersion"], document["kind"]) == ("split.smi-spec.io/v1alpha2", "TrafficSplit")
    assert document["spec"]["service"] == "shop"


def test_a_split_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    first = router(tmp_path).create()
    moved = router(tmp_path).set(250, resource_version=first.resource_version)
    assert router(tmp_path).create() == moved


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=4))
def test_every_weight_reads_back_and_changes_the_version(weights: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = router(Path(folder))
        live, versions = here.create(), set()
        for weight in weights:
            versions.add(live.resource_version)
            live = here.set(weight, resource_version=live.resource_version)
            assert here.get() == live
            assert live.weight == weight
            assert sum(live.backends.values()) == 1000
            assert live.resource_version not in versions


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(2, 4))
def test_of_writers_that_read_the_same_exactly_one_wins(first: int, last: int, writers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        read = router(Path(folder)).create()
        start, outcomes = threading.Barrier(writers), []

        def write(weight: int) -> None:
            start.wait()
            try:
                outcomes.append(router(Path(folder)).set(weight, resource_version=read.resource_version))
            except Busy:
                outcomes.append(None)

        weights = [first, *range(writers - 2), last]
        threads = [threading.Thread(target=write, args=(weight % 1001,)) for weight in weights]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (won,) = [outcome for outcome in outcomes if outcome is not None]
        assert len(outcomes) == writers
        assert router(Path(folder)).get() == won


def test_a_writer_that_read_before_another_wrote_is_refused(tmp_path: Path) -> None:
    read = router(tmp_path).create()
    router(tmp_path).set(50, resource_version=read.resource_version)
    with pytest.raises(Busy, match="changed since it was read"):
        router(tmp_path).set(1000, resource_version=read.resource_version)
    assert router(tmp_path).get().weight == 50


def test_a_lock_held_too_long_is_busy(tmp_path: Path) -> None:
    with locked(tmp_path / "x.lock"), pytest.raises(Busy), locked(tmp_path / "x.lock", patience=0.05):
        pass


@pytest.mark.parametrize("weight", [-1, 1001])
def test_an_impossible_weight_is_refused_and_nothing_written(tmp_path: Path, weight: int) -> None:
    read = router(tmp_path).create()
    with pytest.raises(UsageError, match="outside"):
        router(tmp_path).set(weight, resource_version=read.resource_version)
    assert router(tmp_path).get() == read


def test_a_split_that_is_not_there_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"trafficsplit\.json.*no traffic split"):
        router(tmp_path).get()
    with pytest.raises(Unavailable):
        router(tmp_path).set(0, resource_version="1")
    assert not (tmp_path / "trafficsplit.json").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["spec"]["backends"][0].update(weight=999), "add up to 999"),
        (lambda d: d["spec"]["backends"][0].update(weight=-1), "outside"),
        (lambda d: d["spec"]["backends"][0].update(weight="1000m"), "no whole number"),
        (lambda d: d["spec"]["backends"][0].update(weight=True), "no whole number"),
        (lambda d: d["spec"]["backends"][1].update(service="other"), "its backends are"),
        (lambda d: d["spec"]["backends"][1].update(service="shop-stable"), "listed twice"),
        (lambda d: d["spec"]["backends"].pop(), "its backends are"),
        (lambda d: d["spec"].update(backends=[]), "no list of backends"),
        (lambda d: d["spec"].update(service="other"), "spec.service is other"),
        (lambda d: d.update(kind="HTTPRoute"), "apiVersion and kind"),
        (lambda d: d["metadata"].pop("resourceVersion"), "resourceVersion is no text"),
    ],
)
def test_a_bad_split_is_told_with_its_file_and_never_written_over(tmp_path: Path, change: Any, says: str) -> None:
    read = router(tmp_path).create()
    rewrite(tmp_path / "trafficsplit.json", change)
    bad = (tmp_path / "trafficsplit.json").read_text()
    with pytest.raises(Unavailable, match=says) as caught:
        router(tmp_path).get()
    assert str(tmp_path / "trafficsplit.json") in caught.value.message
    with pytest.raises(Unavailable):
        router(tmp_path).set(500, resource_version=read.resource_version)
    assert (tmp_path / "trafficsplit.json").read_text() == bad


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_broken_file_is_unavailable(tmp_path: Path, text: str) -> None:
    (tmp_path / "trafficsplit.json").write_text(text)
    with pytest.raises(Unavailable, match=r"trafficsplit\.json"):
        router(tmp_path).get()


def test_settled_only_when_the_mesh_confirmed_this_version(tmp_path: Path) -> None:
    live = router(tmp_path).create()
    assert not router(tmp_path).settled(live)
    (tmp_path / "mesh.json").write_text(json.dumps({"resourceVersion": "1"}))
    assert not router(tmp_path).settled(live)
    (tmp_path / "mesh.json").write_text(json.dumps({"resourceVersion": live.resource_version}))
    assert router(tmp_path).settled(live)


def test_the_object_survives_writing_and_reading() -> None:
    split = TrafficSplit("shop", "7", "shop", {"a": 999, "b": 1})
    assert TrafficSplit.parse(split.document()) == split


@pytest.mark.parametrize("names", [("shop", "shop", "b"), ("shop", "a", "a"), ("shop", "a.b", "c")])
def test_names_must_be_three_and_good(tmp_path: Path, names: tuple[str, str, str]) -> None:
    with pytest.raises(UsageError):
        LocalRouter(tmp_path / "x.json", service=names[0], stable=names[1], canary=names[2])
