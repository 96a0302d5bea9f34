"""Figures from Prometheus: what is asked, what is made of the answers, and how the server is spoken to."""

from __future__ import annotations

import http.server
import json
import math
import re
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelchange.adapters.prometheus.client import TOKEN, Client, Point
from parallelchange.adapters.prometheus.metrics import (
    FAMILIES,
    PrometheusMetrics,
    Served,
    quantile,
    sort_out,
    summarize,
)
from parallelchange.adapters.prometheus.promql import Part, compose, literally, matcher
from parallelchange.adapters.prometheus.target import Target
from parallelchange.errors import Unavailable, UsageError
from parallelchange.gates.metrics import MAX_AGE

NOW = 1_000_000.0
TARGET = Target("shop-ns", ("shop-stable", "shop-baseline"), ("shop-stable", "shop-baseline"))
INF = math.inf


def served(**changes: Any) -> Served:
    figures = {"now": NOW, "succeeded": 98.0, "failed": 2.0, "newest": NOW - 3, "since": NOW - 62}
    return Served(**{**figures, "buckets": {10.0: 50.0, 100.0: 100.0, INF: 100.0}, **changes})


def point(figure: str, value: float, part: int = 0, **labels: str) -> Point:
    return Point({"figure": figure, "part": str(part), **labels}, NOW, value)


def whole(part: int = 0) -> list[Point]:
    figures = {"succeeded": 98.0, "failed": 2.0, "newest": NOW - 3, "since": NOW - 62}
    buckets = {"10": 50.0, "100": 100.0, "+Inf": 100.0}
    told = [point(figure, value, part) for figure, value in figures.items()]
    return told + [point("bucket", count, part, le=bound) for bound, count in buckets.items()]


PARTS = (Part("Deployment shop-ns/a", ('a="1"',)), Part("Deployment shop-ns/b", ('b="1"',)))


# --- what is asked --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_each_part_is_asked_about_by_itself(family: str) -> None:
    queries = FAMILIES[family]
    parts = queries.parts(TARGET)
    assert len(parts) == 2
    query = compose(queries, parts, 60.0)
    for part in parts:
        for selector in part.selectors:
            assert f"{queries.counter}{{{selector}}}" in query
            assert f"{queries.buckets}{{{selector}}}" in query
    for figure in ("succeeded", "failed", "bucket", "newest", "since"):
        assert query.count(f'"figure", "{figure}"') == 2
    assert "[60000ms]" in query
    assert "offset 60000ms" in query


def test_families_are_those_a_change_file_can_name() -> None:
    assert set(FAMILIES) == {"linkerd", "istio", "nginx", "envoy"}


def test_all_that_is_not_told_to_be_a_success_is_a_failure() -> None:
    query = compose(FAMILIES["istio"], FAMILIES["istio"].parts(TARGET), 60.0)
    assert 'response_code!~"[1-4].."' in query
    assert 'grpc_response_status!~"' in query


def test_a_window_is_told_to_the_millisecond() -> None:
    assert "[1500ms]" in compose(FAMILIES["envoy"], FAMILIES["envoy"].parts(TARGET), 1.5)


@pytest.mark.parametrize("family", ["nginx", "envoy"])
def test_names_are_no_patterns(family: str) -> None:
    (part,) = FAMILIES[family].parts(Target("ns", (), ("a.b*",)))
    assert all(r"a.b*" not in selector.split("=~")[-1] for selector in part.selectors)


def test_a_value_ends_where_it_ends() -> None:
    assert matcher("label", "=", 'a"} or vector(1) or up{b="') == r'label="a\"} or vector(1) or up{b=\""'
    assert matcher("label", "=", "back\\slash\nline") == r'label="back\\slash\nline"'


@given(st.text())
def test_quoting_can_be_undone(value: str) -> None:
    quoted = matcher("l", "=", value).removeprefix("l=")
    assert json.loads(quoted) == value
    assert "\n" not in quoted


@given(st.text(alphabet="ab.*+?()[]{}|^$\\-"), st.text(alphabet="ab.*+?()[]{}|^$\\-"))
def test_a_literal_matches_itself_alone(value: str, other: str) -> None:
    assert (re.fullmatch(literally(value), other) is not None) == (value == other)


# --- what is made of it ---------------------------------------------------------------------------------------------


def test_the_figures_of_a_version() -> None:
    sample = summarize("v2", 60.0, sort_out(whole(), PARTS[:1]), 1.0)
    assert (sample.version, sample.requests, sample.failures) == ("v2", 100, 2)
    assert sample.p99_ms == pytest.approx(10 + 90 * 49 / 50)
    assert (sample.window, sample.age) == (59.0, 3.0)


def test_parts_are_joined() -> None:
    parts = [served(), served(succeeded=0.0, failed=10.0, newest=NOW - 8, since=NOW - 60)]
    sample = summarize("v2", 60.0, parts, 1000.0)
    assert (sample.requests, sample.failures) == (110, 12)
    assert sample.p99_ms == pytest.approx((10 + 90 * 49 / 50) * 1000)
    assert (sample.window, sample.age) == (52.0, 8.0), "the worst of them"


def test_no_part_may_be_missing() -> None:
    assert len(sort_out(whole(0) + whole(1), PARTS)) == 2
    with pytest.raises(Unavailable, match="Deployment shop-ns/b has no series"):
        sort_out(whole(0), PARTS)
    with pytest.raises(Unavailable, match="Deployment shop-ns/a has no series"):
        sort_out([], PARTS)


def without(figure: str) -> list[Point]:
    return [each for each in whole() if each.labels["figure"] != figure]


def test_a_kind_of_answer_that_was_never_given_is_none() -> None:
    (part,) = sort_out(without("failed"), PARTS[:1])
    assert (part.succeeded, part.failed) == (98.0, 0.0)
    (part,) = sort_out(without("succeeded"), PARTS[:1])
    assert (part.succeeded, part.failed) == (0.0, 2.0)


@pytest.mark.parametrize(
    ("points", "why"),
    [
        (without("newest"), "has no series"),
        (without("since"), "was not being read yet"),
        ([each for each in without("failed") if each.labels["figure"] != "succeeded"], "has not been read"),
    ],
)
def test_what_is_missing_is_said(points: list[Point], why: str) -> None:
    with pytest.raises(Unavailable, match=why):
        sort_out(points, PARTS[:1])


@pytest.mark.parametrize("value", [math.nan, INF, -INF, -1.0])
@pytest.mark.parametrize("figure", ["succeeded", "failed", "newest", "since", "bucket"])
def test_what_is_no_number_is_no_figure(figure: str, value: float) -> None:
    labels = {"le": "10"} if figure == "bucket" else {}
    with pytest.raises(Unavailable):
        sort_out([*whole(), point(figure, value, **labels)], PARTS[:1])


@pytest.mark.parametrize(
    "labels", [{}, {"part": "0"}, {"figure": "bucket", "part": "0"}, {"figure": "since", "part": "7"}]
)
def test_what_was_not_asked_about_is_no_answer(labels: dict[str, str]) -> None:
    with pytest.raises(Unavailable, match="in a way that it should not"):
        sort_out([*whole(), Point(labels, NOW, 1.0)], PARTS[:1])


def test_one_bound_written_in_two_ways_is_one_bucket() -> None:
    (part,) = sort_out([*whole(), point("bucket", 7.0, le="10.0")], PARTS[:1])
    assert part.buckets == {10.0: 57.0, 100.0: 100.0, INF: 100.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"newest": NOW - 61},  # nothing since
        {"since": NOW - 121},  # a hole before the window: what came in it is unknown
        {"newest": NOW - 40, "since": NOW - 62},  # of less than half the window
    ],
)
def test_samples_of_another_time_tell_nothing(changes: dict[str, float]) -> None:
    with pytest.raises(Unavailable):
        summarize("v2", 60.0, [served(), served(**changes)], 1.0)


def test_an_old_reading_is_told_as_old() -> None:
    sample = summarize("v2", 60.0, [served(newest=NOW - MAX_AGE - 1)], 1.0)
    assert sample.age > MAX_AGE


def test_no_requests() -> None:
    nothing = served(succeeded=0.0, failed=0.0, buckets={10.0: 0.0, INF: 0.0})
    sample = summarize("v2", 60.0, [nothing], 1.0)
    assert (sample.requests, sample.failures, sample.p99_ms) == (0, 0, None)


def test_what_is_not_whole_is_rounded_against_the_version() -> None:
    sample = summarize("v2", 60.0, [served(succeeded=98.7, failed=1.2)], 1.0)
    assert (sample.requests, sample.failures) == (98 + 2, 2)
    sample = summarize("v2", 60.0, [served(succeeded=97.9999999999, failed=2.0000000001)], 1.0)
    assert (sample.requests, sample.failures) == (98 + 2, 2), "but not for how computers add"


def test_latency_of_few_does_not_speak_for_all() -> None:
    few = served(buckets={10.0: 40.0, INF: 40.0})
    assert summarize("v2", 60.0, [few], 1.0).p99_ms is None
    # An answer that failed may have taken no time that was measured.
    failing = served(succeeded=60.0, failed=40.0, buckets={10.0: 60.0, INF: 60.0})
    assert summarize("v2", 60.0, [failing], 1.0).p99_ms == pytest.approx(9.9)


def test_histograms_with_other_bounds_are_not_joined() -> None:
    other = served(buckets={20.0: 100.0, INF: 100.0})
    assert summarize("v2", 60.0, [served(), other], 1.0).p99_ms is None


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        ({10.0: 100.0, INF: 100.0}, 9.9),
        ({1.0: 0.0, 10.0: 0.0, 20.0: 100.0, INF: 100.0}, 19.9),
        ({10.0: 99.0, INF: 100.0}, 10.0),
        ({10.0: 98.9, INF: 100.0}, None),  # beyond the last bound
        ({INF: 100.0}, None),
        ({10.0: 100.0}, None),  # not the whole histogram
        ({10.0: 0.0, INF: 0.0}, None),
        ({}, None),
        ({1.0: 50.0, 10.0: 20.0, INF: 100.0}, None),  # not one histogram
    ],
)
def test_quantile(buckets: dict[float, float], expected: float | None) -> None:
    assert quantile(buckets, 0.99) == (None if expected is None else pytest.approx(expected))


@given(st.lists(st.floats(0.0, 2000.0), min_size=1, max_size=200))
def test_quantile_lies_in_the_bucket_of_the_answer_that_it_is_about(values: list[float]) -> None:
    bounds = [1.0, 10.0, 100.0, 1000.0, INF]
    buckets = {bound: float(sum(value <= bound for value in values)) for bound in bounds}
    true = sorted(values)[math.ceil(0.99 * len(values)) - 1]
    bound = next(each for each in bounds if true <= each)
    found = quantile(buckets, 0.99)
    if math.isinf(bound):
        assert found is None
    else:
        assert found is not None
        assert max((each for each in bounds if each < bound), default=0.0) <= found <= bound


# --- how the server is spoken to --------------------------------------------------------------------------------------


class Fake:
    """Answers as it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.status, self.body, self.headers, self.length = 200, b"", {}, -1
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
                fake.asked.append((self.path, dict(urllib.parse.parse_qsl(form)), dict(self.headers)))
                self.send_response(fake.status)
                for name, value in fake.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(fake.body) if fake.length < 0 else fake.length))
                self.end_headers()
                self.wfile.write(fake.body)

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def tell(self, **document: Any) -> None:
        whole = {"status": "success", "data": {"resultType": "vector", "result": []}, **document}
        self.body = json.dumps(whole).encode()


@pytest.fixture
def fake() -> Iterator[Fake]:
    server = Fake()
    server.tell()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)


def vector(*values: str) -> dict[str, Any]:
    return {"resultType": "vector", "result": [{"metric": {"a": "b"}, "value": [NOW, value]} for value in values]}


def test_an_answer(fake: Fake) -> None:
    fake.tell(data=vector("3.5", "NaN"), infos=["PromQL info: metric might not be a counter"])
    first, second = Client(f"{fake.url}/prometheus/").query("up")
    assert first == Point({"a": "b"}, NOW, 3.5)
    assert math.isnan(second.value)
    (path, form, headers) = fake.asked[0]
    assert (path, form) == ("/prometheus/api/v1/query", {"query": "up", "timeout": "10s"})
    assert "Authorization" not in headers


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"warnings": ["1 of 2 stores did not answer"]}, "tells a part only: 1 of 2"),
        ({"status": "error", "error": "query timed out"}, "cannot tell: query timed out"),
        ({"status": "error"}, "cannot tell"),
        ({"data": {"resultType": "matrix", "result": []}}, "answers with a matrix"),
        ({"data": {}}, "in a way that it should not"),
        ({"data": None}, "in a way that it should not"),
        ({"data": {"resultType": "vector", "result": [{"metric": {}}]}}, "in a way that it should not"),
        ({"data": vector("many")}, "in a way that it should not"),
    ],
)
def test_what_is_no_whole_answer(fake: Fake, document: dict[str, Any], why: str) -> None:
    fake.tell(**document)
    with pytest.raises(Unavailable, match=why):
        Client(fake.url).query("up")


@pytest.mark.parametrize("body", [b"", b"<html>log in</html>", b"[]", b"null", b'{"status": "success"', b"\xff"])
def test_what_is_no_prometheus(fake: Fake, body: bytes) -> None:
    fake.body = body
    with pytest.raises(Unavailable):
        Client(fake.url).query("up")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 500, 502, 503, 504])
def test_an_error_is_no_answer_even_with_data(fake: Fake, status: int) -> None:
    fake.tell(data=vector("1"))
    fake.status = status
    with pytest.raises(Unavailable, match=f"answers {status}: .*success"):
        Client(fake.url).query("up")


def test_a_redirect_is_not_followed(fake: Fake) -> None:
    fake.status, fake.headers = 302, {"Location": f"{fake.url}/login"}
    with pytest.raises(Unavailable, match="answers 302"):
        Client(fake.url, secret="secret").query("up")
    assert [path for path, _, _ in fake.asked] == ["/api/v1/query"]


def test_an_answer_that_breaks_off_is_none(fake: Fake) -> None:
    fake.tell(data=vector("1"))
    fake.length = len(fake.body) + 10
    with pytest.raises(Unavailable):
        Client(fake.url, timeout=1.0).query("up")


def test_an_answer_beyond_all_measure_is_none(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallelchange.adapters.prometheus.client._LARGEST", 10)
    with pytest.raises(Unavailable, match="not whole, or it is too large"):
        Client(fake.url).query("up")


@pytest.mark.parametrize(
    ("secret", "sent"),
    [("abc.def-_~+/=", "Bearer abc.def-_~+/="), ("me:pass:word", "Basic bWU6cGFzczp3b3Jk"), (" abc\n", "Bearer abc")],
)
def test_the_secret_is_sent(fake: Fake, monkeypatch: pytest.MonkeyPatch, secret: str, sent: str) -> None:
    monkeypatch.setenv(TOKEN, secret)
    Client(fake.url).query("up")
    assert fake.asked[0][2]["Authorization"] == sent


def test_the_secret_is_told_to_nobody(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "line\nbreak-hunter2")
    with pytest.raises(UsageError) as error:
        Client(fake.url)
    assert "hunter2" not in str(error.value)
    with pytest.raises(UsageError) as error:
        Client("http://me:hunter2@prometheus.example:9090")
    assert "hunter2" not in str(error.value)
    fake.status = 401
    with pytest.raises(Unavailable) as refusal:
        Client(fake.url, secret="hunter2").query("up")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "prometheus:9090",
        "file:///etc/passwd",
        "http://",
        "http://x:port",
        "http://x/?query=up",
        "http://[x",
        "ftp://x",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UsageError):
        Client(url)


# --- the port -----------------------------------------------------------------------------------------------------


def test_queries_that_nobody_knows() -> None:
    with pytest.raises(UsageError, match="dtrace"):
        PrometheusMetrics("http://prometheus.example", "dtrace", lambda _: TARGET)


def test_a_version_that_nothing_runs(fake: Fake) -> None:
    metrics = PrometheusMetrics(fake.url, "linkerd", lambda _: Target("shop-ns", (), ("shop",)))
    assert metrics.read("v2", 60.0) is None
    assert metrics.reasons == {"v2": "nothing that takes traffic is known to run it"}
    assert fake.asked == []


def test_a_cluster_that_does_not_say_what_runs(fake: Fake) -> None:
    def target(version: str) -> Target:
        raise Unavailable(f"what runs {version} is unknown")

    metrics = PrometheusMetrics(fake.url, "linkerd", target)
    assert metrics.read("v2", 60.0) is None
    assert metrics.reasons == {"v2": "what runs v2 is unknown"}


def test_no_answer_and_an_empty_one_are_unknown(fake: Fake) -> None:
    metrics = PrometheusMetrics(fake.url, "linkerd", lambda _: TARGET)
    assert metrics.read("v2", 60.0) is None
    assert metrics.reasons["v2"] == "Deployment shop-ns/shop-stable has no series, or none any more"
    fake.status = 503
    assert metrics.read("v2", 60.0) is None
    assert "answers 503" in metrics.reasons["v2"]


def test_a_whole_answer(fake: Fake) -> None:
    result = [{"metric": dict(each.labels), "value": [NOW, str(each.value)]} for each in whole(0) + whole(1)]
    fake.tell(data={"resultType": "vector", "result": result})
    metrics = PrometheusMetrics(fake.url, "nginx", lambda _: TARGET)
    sample = metrics.read("v2", 60.0)
    assert sample is not None
    assert (sample.requests, sample.failures) == (200, 4)
    assert sample.p99_ms == pytest.approx(98_200.0)
    assert metrics.reasons == {"v2": ""}
