"""Figures from the cluster's SMI metrics API."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelchange.adapters.kubernetes.smi_metrics import SmiMetrics, parse
from parallelchange.adapters.prometheus.target import Target
from parallelchange.errors import NotFound, Unavailable

NOW = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC).timestamp()


def answer(name: str = "shop-canary", **changes: Any) -> dict[str, Any]:
    """As the implementation for Linkerd answers."""
    document: dict[str, Any] = {
        "kind": "TrafficMetrics",
        "apiVersion": "metrics.smi-spec.io/v1alpha1",
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2026-03-01T12:00:28Z"},
        "timestamp": "2026-03-01T12:00:28Z",
        "window": "30s",
        "resource": {"kind": "Deployment", "namespace": "shop", "name": name},
        "edge": {"direction": "from", "resource": None},
        "metrics": [
            {"name": "p99_response_latency", "unit": "ms", "value": "296875m"},
            {"name": "p90_response_latency", "unit": "ms", "value": "268750m"},
            {"name": "p50_response_latency", "unit": "ms", "value": "162500m"},
            {"name": "success_count", "value": "73492m"},
            {"name": "failure_count", "value": "0"},
        ],
    }
    return {**document, **changes}


def with_metric(name: str, document: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    document = copy.deepcopy(document or answer())
    for metric in document["metrics"]:
        if metric["name"] == name:
            metric.update(changes)
    return document


def without_metric(name: str) -> dict[str, Any]:
    return answer(metrics=[metric for metric in answer()["metrics"] if metric["name"] != name])


class Api:
    """The API, as far as it is asked."""

    def __init__(self, **answers: Mapping[str, Any] | Exception) -> None:
        self.answers = {name.replace("_", "-"): told for name, told in answers.items()}

    def read(self, name: str) -> Mapping[str, Any]:
        told = self.answers[name]
        if isinstance(told, Exception):
            raise told
        return told

    def metrics(self, *, now: float = NOW) -> SmiMetrics:
        return SmiMetrics(self.read, lambda _: Target("shop", tuple(self.answers), ()), now=lambda: now)


def reason(document: Mapping[str, Any], window: float = 30.0) -> str:
    """Why this answer tells nothing."""
    metrics = Api(shop_canary=document).metrics()
    assert metrics.read("v2", window) is None
    return metrics.reasons["v2"]


def test_one_deployment() -> None:
    metrics = Api(shop_canary=answer()).metrics()
    sample = metrics.read("v2", 60.0)
    assert sample is not None
    assert (sample.version, sample.requests, sample.failures) == ("v2", 73, 0)
    assert sample.p99_ms == pytest.approx(296.875)
    assert (sample.window, sample.age) == (30.0, 2.0), "the API's window, not the one asked about"
    assert metrics.reasons == {"v2": ""}


def test_the_example_of_the_specification() -> None:
    metrics = [
        {"name": "p99_response_latency", "unit": "seconds", "value": "10m"},
        {"name": "success_count", "value": 100},
        {"name": "failure_count", "value": 100},
    ]
    figures = parse(answer(metrics=metrics), "shop", "shop-canary")
    assert (figures.succeeded, figures.failed, figures.p99_ms) == (100, 100, pytest.approx(10.0))


def test_deployments_are_joined_and_the_slowest_tells_the_latency() -> None:
    slow = with_metric("p99_response_latency", answer("shop-baseline", timestamp="2026-03-01T12:00:20Z"), value="400")
    slow = with_metric("failure_count", slow, value="1500m")
    sample = Api(shop_stable=answer("shop-stable"), shop_baseline=slow).metrics().read("v1", 30.0)
    assert sample is not None
    # Of 146.984 and 1.5 it is rounded against the version.
    assert (sample.requests, sample.failures, sample.p99_ms) == (146 + 2, 2, 400.0)
    assert sample.age == 10.0


def test_a_deployment_without_requests_has_no_say_in_the_latency() -> None:
    idle = with_metric("p99_response_latency", answer("shop-baseline"), value="0")
    idle = with_metric("success_count", idle, value="0")
    sample = Api(shop_stable=answer("shop-stable"), shop_baseline=idle).metrics().read("v1", 30.0)
    assert sample is not None
    assert (sample.requests, sample.p99_ms) == (73, pytest.approx(296.875))
    sample = Api(shop_baseline=idle).metrics().read("v1", 30.0)
    assert sample is not None
    assert (sample.requests, sample.failures, sample.p99_ms) == (0, 0, None)


@pytest.mark.parametrize(
    "document",
    [
        without_metric("p99_response_latency"),
        with_metric("p99_response_latency", value="0"),  # what the implementation tells of nothing
        with_metric("p99_response_latency", value="-9223372036854775808m"),  # and of what is no number
        with_metric("p99_response_latency", value="NaN"),
        with_metric("p99_response_latency", unit="furlongs"),
        with_metric("p99_response_latency", unit=None),
    ],
)
def test_unknown_latency_is_unknown_for_all(document: dict[str, Any]) -> None:
    sample = Api(shop_canary=document, shop_stable=answer("shop-stable")).metrics().read("v2", 30.0)
    assert sample is not None
    assert (sample.requests, sample.p99_ms) == (146, None)


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "TrafficMetricsList", "resource": {"kind": "Deployment"}, "items": []},
        {"kind": "TrafficMetricsList", "items": None},
    ],
)
def test_nothing_told_is_unknown(document: dict[str, Any]) -> None:
    assert reason(document) == "the metrics API has nothing of Deployment shop/shop-canary"


@pytest.mark.parametrize(
    "document",
    [
        {},
        answer(kind="Status"),
        answer("shop-stable"),
        answer(resource={"kind": "Deployment", "namespace": "other", "name": "shop-canary"}),
        answer(edge={"direction": "to", "resource": None}),
        answer(edge={"direction": "from", "resource": {"kind": "Deployment", "name": "web"}}),
        answer(metrics=None),
        answer(metrics=[]),
        without_metric("success_count"),
        without_metric("failure_count"),
        with_metric("failure_count", value=None),
        with_metric("failure_count", value=True),
        with_metric("failure_count", value="NaN"),
        with_metric("failure_count", value="Infinity"),
        with_metric("failure_count", value="-1"),
        with_metric("failure_count", value="1x"),
        with_metric("failure_count", value=""),
        answer(timestamp=None),
        answer(timestamp="yesterday"),
        answer(timestamp="2026-03-01T12:00:28"),  # whose time?
        answer(window=None),
        answer(window="30"),
        answer(window="-30s"),
        answer(window=""),
    ],
)
def test_an_answer_that_cannot_be_used_is_unknown(document: dict[str, Any]) -> None:
    assert "Deployment shop/shop-canary" in reason(document)


def test_one_deployment_that_is_unknown_makes_all_unknown() -> None:
    metrics = Api(shop_stable=answer("shop-stable"), shop_canary={"kind": "TrafficMetricsList", "items": []}).metrics()
    assert metrics.read("v2", 30.0) is None


@pytest.mark.parametrize("error", [NotFound("there is no metrics API"), Unavailable("the API server is gone")])
def test_no_answer_is_unknown(error: Unavailable) -> None:
    metrics = Api(shop_canary=error).metrics()
    assert metrics.read("v2", 30.0) is None
    assert metrics.reasons == {"v2": error.message}


def test_a_version_that_nothing_runs_is_unknown() -> None:
    metrics = Api().metrics()
    assert metrics.read("v2", 30.0) is None
    assert metrics.reasons == {"v2": "nothing that takes traffic is known to run it"}


def test_more_time_than_was_asked_about_is_unknown() -> None:
    assert "30 s, and 10 s were asked about" in reason(answer(), window=10.0)
    assert "90 s" in reason(answer(window="1m30s"), window=60.0)


def test_an_old_answer_is_told_as_old_and_one_of_tomorrow_is_not_told() -> None:
    sample = Api(shop_canary=answer()).metrics(now=NOW + 600).read("v2", 30.0)
    assert sample is not None
    assert sample.age == 602.0
    sample = Api(shop_canary=answer()).metrics(now=NOW - 10).read("v2", 30.0)
    assert sample is not None
    assert sample.age == 0.0
    metrics = Api(shop_canary=answer()).metrics(now=NOW - 3600)
    assert metrics.read("v2", 30.0) is None
    assert "clocks" in metrics.reasons["v2"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30.0), ("1m0s", 60.0), ("1h2m3.5s", 3723.5), ("500ms", 0.5), ("1.5s", 1.5), ("5µs", 5e-6)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse(answer(window=text), "shop", "shop-canary").window == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("100", 100.0),
        ("1500m", 1.5),
        ("2500u", 0.0025),
        ("3n", 3e-9),
        ("1k", 1000.0),
        ("1.5M", 1.5e6),
        ("2E", 2e18),
        ("1e3", 1000.0),
        ("1E3", 1000.0),
        ("25e-1", 2.5),
        ("+7", 7.0),
        (".5", 0.5),
        (12, 12.0),
    ],
)
def test_quantities(text: Any, amount: float) -> None:
    figures = parse(with_metric("failure_count", value=text), "shop", "shop-canary")
    assert figures.failed == pytest.approx(amount)


@given(st.text(max_size=8))
def test_what_is_no_quantity_is_never_taken_for_one(text: str) -> None:
    try:
        figures = parse(with_metric("failure_count", value=text), "shop", "shop-canary")
    except Unavailable:
        return
    assert figures.failed >= 0
    assert any(letter.isdigit() for letter in text)
