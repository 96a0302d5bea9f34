"""Success rate and latency over a window of the local series."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from parallelchange.adapters.local_metrics import LocalMetrics, quantile

NOW = 1_000_000.0


def line(ago: float, codes: dict[str, int], *, slow: int = 0, run: str = "1", cluster: str = "shop-stable") -> str:
    total = sum(codes.values())
    buckets = [["10", total - slow], ["100", total], ["+Inf", total]] if total else []
    clusters = {cluster: {"codes": codes, "buckets": buckets}}
    return json.dumps({"time": NOW - ago, "run": run, "clusters": clusters}) + "\n"


def metrics(folder: Path, *lines: str) -> LocalMetrics:
    (folder / "metrics.jsonl").write_text("".join(lines))
    clusters = {"shop-v1": "shop-stable", "shop-v2": "shop-canary"}
    return LocalMetrics(folder / "metrics.jsonl", clusters, now=lambda: NOW)


def read(folder: Path, *lines: str, window: float = 60) -> Any:
    return metrics(folder, *lines).read("shop-v1", window)


def test_what_was_served_in_the_window(tmp_path: Path) -> None:
    sample = read(
        tmp_path,
        line(120, {"200": 900, "500": 90}),
        line(60, {"200": 1000, "500": 100}),
        line(1, {"200": 1090, "500": 105, "503": 4, "404": 1}),
    )
    assert (sample.version, sample.requests, sample.failures) == ("shop-v1", 100, 9)
    assert (sample.window, sample.age) == (59.0, 1.0)


def test_codes_of_the_server_fail_and_codes_of_the_client_do_not(tmp_path: Path) -> None:
    sample = read(tmp_path, line(60, {}), line(0, {"200": 1, "404": 2, "499": 1, "500": 1, "504": 1}))
    assert (sample.requests, sample.failures) == (6, 2)


def test_nothing_served_is_zero_and_has_no_latency(tmp_path: Path) -> None:
    sample = read(tmp_path, line(60, {"200": 7}), line(0, {"200": 7}))
    assert (sample.requests, sample.failures, sample.p99_ms) == (0, 0, None)


def test_a_new_envoy_counts_from_zero_even_when_it_counts_further(tmp_path: Path) -> None:
    sample = read(
        tmp_path,
        line(60, {"200": 10}),
        line(30, {"200": 15, "500": 1}),
        line(20, {"200": 40}, run="2"),
        line(0, {"200": 50}, run="2"),
    )
    assert (sample.requests, sample.failures) == (5 + 1 + 40 + 10, 1)


def test_a_counter_that_falls_was_reset(tmp_path: Path) -> None:
    assert read(tmp_path, line(60, {"200": 10}), line(30, {"200": 4}), line(0, {"200": 6})).requests == 6


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (line(0, {"200": 5}),),
        (line(29, {"200": 5}), line(0, {"200": 9})),  # less than half the window
        (line(80, {"200": 5}), line(11, {"200": 9})),  # nobody adds to it any more
        (line(60, {}, cluster="shop-canary"), line(0, {}, cluster="shop-canary")),
        ("{}\n", line(0, {"200": 9})),
        ("nonsense\n", line(60, {"200": 5}), line(0, {"200": 9})),
    ],
)
def test_what_cannot_be_told_is_none(tmp_path: Path, lines: tuple[str, ...]) -> None:
    assert read(tmp_path, *lines) is None


def test_no_series_and_no_such_version_are_none(tmp_path: Path) -> None:
    assert LocalMetrics(tmp_path / "none.jsonl", {"shop-v1": "shop-stable"}).read("shop-v1", 10) is None
    assert metrics(tmp_path, line(60, {}), line(0, {})).read("shop-v3", 60) is None


def test_a_line_that_is_being_written_is_not_read_yet(tmp_path: Path) -> None:
    sample = read(tmp_path, line(60, {"200": 1}), line(1, {"200": 3}), line(0, {"200": 9})[:-5])
    assert (sample.requests, sample.age) == (2, 1.0)


def test_latency_is_of_the_window_only(tmp_path: Path) -> None:
    sample = read(tmp_path, line(60, {"200": 100}, slow=100), line(0, {"200": 200}, slow=100))
    assert sample.p99_ms == pytest.approx(9.9)


def test_quantile_is_interpolated_within_its_bucket() -> None:
    assert quantile({10.0: 90, 100.0: 100, float("inf"): 100}, 0.99) == pytest.approx(91.0)
    assert quantile({10.0: 0, float("inf"): 5}, 0.99) == 10.0
    assert quantile({}, 0.99) is None
    assert quantile({10.0: 0, float("inf"): 0}, 0.99) is None
