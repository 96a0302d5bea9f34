"""Figures from a real Prometheus: it scrapes what the tests expose in the place of the meshes, and a real Envoy."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.prometheus import NoPrometheus, Prometheus, Scraped, find_prometheus

from parallelchange.adapters.local_files import METRICS, RUNTIME, read_object
from parallelchange.adapters.local_metrics import LocalMetrics
from parallelchange.adapters.local_router import LocalRouter
from parallelchange.adapters.prometheus.client import Client
from parallelchange.adapters.prometheus.metrics import FAMILIES, PrometheusMetrics
from parallelchange.adapters.prometheus.target import Target
from parallelchange.errors import Unavailable
from parallelchange.local.environment import LocalMesh
from parallelchange.local.process import LOOPBACK, ReservedPort
from parallelchange.local.supervisor import Service
from parallelchange.ports import Sample

# One server for all tests of this file; where it has to be built first, that takes minutes.
pytestmark = [pytest.mark.xdist_group("prometheus"), pytest.mark.timeout(1200)]

MARGIN = 2.5
"""Seconds that the window begins before the figures change; a read may take nearly as long."""
PATIENCE = 30.0
"""Seconds an answer may take on a busy machine."""

Pages = dict[str, str | None]


def eventually(true: Callable[[], Any], *, within: float = 30.0) -> Any:
    deadline = time.monotonic() + within
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.1)
    return found


# --- what the meshes expose, with their own label names -------------------------------------------------------------


def series(name: str, value: float, **labels: str) -> str:
    text = ",".join(f"{key}={json.dumps(each)}" for key, each in labels.items())
    return f"{name}{{{text}}} {value}\n"


def histogram(name: str, cumulative: Mapping[str, float], **labels: str) -> str:
    return "".join(series(f"{name}_bucket", count, **labels, le=bound) for bound, count in cumulative.items())


def linkerd(ok: int, bad: int | None = None, *, le10: int = 0, le100: int = 0, probes: int = 0, out: int = 0) -> str:
    """What a Linkerd proxy tells; there is no series of failures before the first."""
    common = {
        "direction": "inbound",
        "authority": "shop.example.svc.cluster.local:80",
        "target_addr": "10.0.0.1:8080",
        "tls": "true",
        "client_id": "web.example.serviceaccount.identity.linkerd.cluster.local",
        "srv_group": "",
        "srv_kind": "default",
        "srv_name": "all-unauthenticated",
        "srv_port": "8080",
        "route_group": "",
        "route_kind": "default",
        "authz_group": "",
        "authz_kind": "default",
    }
    served = {**common, "route_name": "default", "authz_name": "all-unauthenticated", "status_code": "200"}
    probed = {**common, "route_name": "probe", "authz_name": "probe", "status_code": "200"}
    told = [
        series("response_total", ok, **served, classification="success"),
        histogram("response_latency_ms", {"10": le10, "100": le100, "50000": ok, "+Inf": ok}, **served),
        series("response_total", probes, **probed, classification="success"),
        histogram("response_latency_ms", {"10": probes, "100": probes, "50000": probes, "+Inf": probes}, **probed),
        series("response_total", out, **{**served, "direction": "outbound"}, classification="success"),
    ]
    if bad is not None:
        told.append(series("response_total", bad, **{**served, "status_code": "500"}, classification="failure"))
    return "".join(told)


def istio(
    ok: int,
    *,
    namespace: str = "istio",
    refused: int = 0,
    cut: int = 0,
    grpc: Mapping[str, int] | None = None,
    beyond: int = 0,
) -> str:
    """What the sidecar of a workload tells, and that of its caller of the same requests."""
    told = []
    for reporter, times in (("destination", 1), ("source", 10)):
        common = {
            "reporter": reporter,
            "source_workload": "web",
            "source_workload_namespace": namespace,
            "destination_workload": "shop-canary",
            "destination_workload_namespace": namespace,
            "destination_service_name": "shop",
            "response_flags": "-",
            "connection_security_policy": "mutual_tls",
        }
        answers = [("http", "200", "", ok), ("http", "503", "", refused), ("http", "0", "", cut)]
        answers += [("grpc", "200", status, count) for status, count in (grpc or {}).items()]
        for protocol, code, status, count in answers:
            labels = {**common, "request_protocol": protocol, "response_code": code, "grpc_response_status": status}
            if not count:
                continue
            told.append(series("istio_requests_total", count * times, **labels))
            within = count * times - (beyond if code == "200" and protocol == "http" else 0)
            bounds = {"0.5": 0, "100": within, "3600000": within, "+Inf": count * times}
            told.append(histogram("istio_request_duration_milliseconds", bounds, **labels))
    return "".join(told)


def nginx(namespace: str, counts: Mapping[tuple[str, str, str], int]) -> str:
    """What the controller tells: (Service of the main Ingress, Service it went to instead, status) to requests."""
    told = []
    for (service, instead, status), count in counts.items():
        labels = {
            "controller_class": "k8s.io/ingress-nginx",
            "controller_namespace": "ingress-nginx",
            "controller_pod": "ingress-nginx-controller-1",
            "host": "shop.example",
            "path": "/",
            "method": "GET",
            "namespace": namespace,
            "ingress": "shop",
            "service": service,
            "canary": f"{namespace}-{instead}-80" if instead else "",
            "status": status,
        }
        told.append(series("nginx_ingress_controller_requests", count, **labels))
        bounds = {"0.1": count / 2, "0.5": count, "10": count, "+Inf": count}
        told.append(histogram("nginx_ingress_controller_request_duration_seconds", bounds, **labels))
    return "".join(told)


# --- one story, told once: what is exposed before and after a moment ------------------------------------------------

ODD = 'o"d\\d{}|.*'
BEFORE_NGINX = {("shop-stable", "", "200"): 100, ("shop-stable", "shop-canary", "200"): 10}
AFTER_NGINX = {
    ("shop-stable", "", "200"): 180,
    ("shop-stable", "", "404"): 4,
    ("shop-stable", "shop-canary", "200"): 28,
    ("shop-stable", "shop-canary", "502"): 2,
}


@dataclass(frozen=True)
class Page:
    """One process: its labels, and what it exposes before and after, and in between if that is not the same."""

    labels: Mapping[str, str]
    before: str | None
    after: str | None
    between: str | None = None


def proxy(
    namespace: str, deployment: str, pod: str, before: str | None, after: str, *, between: str | None = None
) -> Page:
    labels = {"namespace": namespace, "deployment": deployment, "pod": f"{deployment}-{pod}"}
    return Page({**labels, "instance": f"{namespace}-{deployment}-{pod}:4191"}, before, after, between)


STORY = (
    proxy(
        "plain",
        "shop-canary",
        "a",
        linkerd(100, le10=100, le100=100, probes=50, out=500),
        linkerd(160, 3, le10=130, le100=159, probes=90, out=900),
    ),
    proxy("joined", "shop-stable", "a", linkerd(10, 1, le10=10, le100=10), linkerd(40, 2, le10=40, le100=40)),
    proxy("joined", "shop-stable", "b", linkerd(10, 1, le10=10, le100=10), linkerd(50, 1, le10=50, le100=50)),
    proxy("joined", "shop-baseline", "a", linkerd(5, 0, le10=5, le100=5), linkerd(35, 4, le10=5, le100=35)),
    proxy("restarted", "shop", "a", linkerd(1000, 50), linkerd(20, 5), between=linkerd(1000, 80)),
    proxy("late", "shop", "a", linkerd(10), linkerd(20)),
    proxy("late", "shop", "b", None, linkerd(100_000, 7, le10=100_000, le100=100_000)),
    proxy("only-late", "shop", "a", None, linkerd(100_000, 7, le10=100_000, le100=100_000)),
    proxy("regrown", "shop", "a", linkerd(10, 1), linkerd(30, 6), between=linkerd(3, 0)),
    proxy(
        "fresh",
        "shop",
        "a",
        "process_cpu_seconds_total 1\n",
        linkerd(90, 60, le10=90, le100=90),
        between=linkerd(30, 20, le10=30, le100=30),
    ),
    proxy("idle", "shop", "a", linkerd(7, le10=7, le100=7), linkerd(7, le10=7, le100=7)),
    proxy("gone", "shop", "a", linkerd(10, le10=10, le100=10), linkerd(20, le10=20, le100=20)),
    proxy(ODD, "shop", "a", linkerd(10), linkerd(20)),
    Page(
        {"instance": "istio:15020", "namespace": "istio", "pod": "shop-canary-1"},
        istio(50, grpc={"0": 5}),
        istio(110, refused=2, cut=1, grpc={"0": 10, "14": 4, "5": 6, "12": 1}),
    ),
    Page(
        {"instance": "far:15020", "namespace": "far", "pod": "shop-canary-1"},
        istio(100, namespace="far"),
        istio(200, namespace="far", beyond=2),
    ),
    # As the controller's ServiceMonitor has it, as a discovery of pods has it, and with `honorLabels`.
    Page(
        {"instance": "nginx-1:10254", "namespace": "ingress-nginx", "service": "ingress-nginx-controller-metrics"},
        nginx("watched", BEFORE_NGINX),
        nginx("watched", AFTER_NGINX),
    ),
    Page(
        {"instance": "nginx-2:10254", "namespace": "ingress-nginx", "pod": "ingress-nginx-controller-1"},
        nginx("found", BEFORE_NGINX),
        nginx("found", AFTER_NGINX),
    ),
    Page({"instance": "nginx-3:10254"}, nginx("honored", BEFORE_NGINX), nginx("honored", AFTER_NGINX)),
)


class Exporter:
    """Serves the pages, and an error where there is none."""

    def __init__(self) -> None:
        pages: Pages = {}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = pages.get(self.path)
                self.send_response(500 if text is None else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # a scrape that takes too long is given up
                    self.wfile.write((text or "").encode())

            def log_message(self, *args: Any) -> None:
                pass

        self.pages = pages
        self.server = http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


def program() -> Path:
    try:
        return find_prometheus()
    except NoPrometheus as reason:
        pytest.skip(str(reason))


class Told:
    """Prometheus, after the story was told."""

    def __init__(self, server: Prometheus, exporter: Exporter) -> None:
        self.server, self.exporter = server, exporter
        self.client = Client(server.url, timeout=PATIENCE)
        self._show(lambda page: page.before)
        eventually(lambda: self.newest() > time.time() - 1.5, within=60)
        self.wait_for_scrapes()
        time.sleep(MARGIN)
        self.began = time.time()
        time.sleep(MARGIN)
        self._show(lambda page: page.between or page.after)
        self.wait_for_scrapes()
        self._show(lambda page: page.after)
        self.wait_for_scrapes()

    def _show(self, which: Callable[[Page], str | None]) -> None:
        self.exporter.pages.update({path(number): which(page) for number, page in enumerate(STORY)})

    def newest(self) -> float:
        """When the last of the pages was last scraped, which has the others' later ones beside it."""
        points = self.client.query("timestamp(up)")
        return min((point.value for point in points), default=0.0) if len(points) == len(STORY) else 0.0

    def wait_for_scrapes(self) -> None:
        now = time.time()
        eventually(lambda: self.newest() > now)

    def window(self) -> float:
        """Seconds since the moment the story is about."""
        return time.time() - self.began

    def metrics(self, queries: str, namespace: str, *names: str) -> PrometheusMetrics:
        def target(version: str) -> Target:
            return Target(namespace, names, names)

        return PrometheusMetrics(self.server.url, queries, target, timeout=PATIENCE)

    def read(self, queries: str, namespace: str, *names: str) -> Sample:
        metrics = self.metrics(queries, namespace, *names)
        sample = metrics.read("v2", self.window())
        assert sample is not None, metrics.reasons["v2"]
        return sample

    def untold(self, queries: str, namespace: str, *names: str) -> str:
        """Why nothing is told."""
        metrics = self.metrics(queries, namespace, *names)
        assert metrics.read("v2", self.window()) is None
        return metrics.reasons["v2"]


def path(number: int) -> str:
    return f"/{number}/metrics"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    exporter = Exporter()
    targets = [Scraped(exporter.port, path(number), page.labels) for number, page in enumerate(STORY)]
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), program(), targets)
    server.start()
    try:
        yield Told(server, exporter)
    finally:
        server.stop()
        exporter.server.shutdown()
        exporter.server.server_close()


# --- what is made of it ---------------------------------------------------------------------------------------------


def test_the_first_failures_are_counted_and_probes_are_not(told: Told) -> None:
    sample = told.read("linkerd", "plain", "shop-canary")
    assert (sample.version, sample.requests, sample.failures) == ("v2", 63, 3)
    # Of 60 answers 30 took up to 10 ms and 29 more up to 100 ms: the 59.4th lies between 100 ms and 50 s.
    assert sample.p99_ms == pytest.approx(100 + 49_900 * 0.4)
    assert sample.age < 5
    assert told.window() - 3 < sample.window < told.window() + 3
    matched = 'direction="inbound",namespace="plain",route_name!="probe"'
    window = f"{told.window():.0f}s"
    failures = f'sum(increase(response_total{{{matched},classification="failure"}}[{window}]))'
    assert [point.value for point in told.client.query(failures)] in ([], [0.0]), "what increase() makes of them"
    latency = f"histogram_quantile(0.99, sum by (le) (increase(response_latency_ms_bucket{{{matched}}}[{window}])))"
    (point,) = told.client.query(latency)
    assert sample.p99_ms == pytest.approx(point.value)


def test_deployments_of_a_version_are_joined(told: Told) -> None:
    sample = told.read("linkerd", "joined", "shop-stable", "shop-baseline")
    assert (sample.requests, sample.failures) == (30 + 40 + 30 + 1 + 0 + 4, 5)
    # 70 answers of 100 took up to 10 ms, the others up to 100 ms.
    assert sample.p99_ms == pytest.approx(10 + 90 * 29 / 30)
    alone = told.read("linkerd", "joined", "shop-stable")
    assert (alone.requests, alone.failures, alone.p99_ms) == (71, 1, pytest.approx(9.9))


@pytest.mark.parametrize(
    ("namespace", "names"),
    [("joined", ("shop-stable", "shop-canary")), ("plain", ("shop-canar",)), ("plai", ("shop-canary",))],
)
def test_a_deployment_without_figures_makes_all_unknown(told: Told, namespace: str, names: tuple[str, ...]) -> None:
    why = told.untold("linkerd", namespace, *names)
    assert why == f"Deployment {namespace}/{names[-1]} has no series, or none any more"


def test_a_restart_neither_hides_failures_nor_counts_the_past(told: Told) -> None:
    sample = told.read("linkerd", "restarted", "shop")
    assert sample.requests - sample.failures == 20
    assert 35 <= sample.failures <= 80, "it is increase() that tells, and stretches it"
    sample = told.read("linkerd", "regrown", "shop")
    assert sample.requests - sample.failures == 30
    assert 6 <= sample.failures <= 18


def test_the_past_of_a_process_read_late_is_held_against_the_version_only(told: Told) -> None:
    sample = told.read("linkerd", "late", "shop")
    assert (sample.requests, sample.failures) == (10 + 7, 7)


def test_what_was_not_being_read_when_the_window_began_is_unknown(told: Told) -> None:
    why = told.untold("linkerd", "only-late", "shop")
    assert why == "Deployment only-late/shop was not being read yet when the window began"
    metrics = told.metrics("linkerd", "only-late", "shop")
    # Of the time since it is read it can be told.
    sample = eventually(lambda: metrics.read("v2", 2.0))
    assert sample.requests == 0


def test_the_first_requests_of_all_are_counted_where_the_process_was_being_read(told: Told) -> None:
    sample = told.read("linkerd", "fresh", "shop")
    assert (sample.requests, sample.failures, sample.p99_ms) == (150, 60, pytest.approx(9.9))


def test_no_requests_are_told_as_none(told: Told) -> None:
    sample = told.read("linkerd", "idle", "shop")
    assert (sample.requests, sample.failures, sample.p99_ms) == (0, 0, None)


def test_names_stay_what_they_are(told: Told) -> None:
    sample = told.read("linkerd", ODD, "shop")
    assert sample.requests == 10
    # Nor are they patterns.
    for queries in FAMILIES:
        assert "has no series" in told.untold(queries, ".*", ".*")
        assert "has no series" in told.untold(queries, "plain|joined", "shop.*")


def test_istio(told: Told) -> None:
    sample = told.read("istio", "istio", "shop-canary")
    # 503, no answer, UNAVAILABLE and UNIMPLEMENTED are the version's; NOT_FOUND is the caller's.
    assert (sample.requests, sample.failures) == (60 + 2 + 1 + 5 + 4 + 6 + 1, 2 + 1 + 4 + 1)
    assert 99 < sample.p99_ms <= 100
    assert "has no series" in told.untold("istio", "istio", "shop-stable")


def test_latency_beyond_the_last_bound_is_unknown_and_not_that_bound(told: Told) -> None:
    sample = told.read("istio", "far", "shop-canary")
    assert (sample.requests, sample.failures, sample.p99_ms) == (100, 0, None)


@pytest.mark.parametrize("namespace", ["watched", "found", "honored"])
def test_nginx(told: Told, namespace: str) -> None:
    stable, canary = (told.read("nginx", namespace, name) for name in ("shop-stable", "shop-canary"))
    assert (stable.requests, stable.failures) == (84, 0)
    assert stable.p99_ms == pytest.approx(100 + 400 * 0.98)
    assert (canary.requests, canary.failures) == (20, 2)
    assert "has no series" in told.untold("nginx", namespace, "shop"), "shop-canary is another Service"


def test_a_version_that_is_told_of_no_more_is_unknown(told: Told) -> None:
    metrics = told.metrics("linkerd", "gone", "shop")
    assert metrics.read("v2", told.window()) is not None
    place = next(number for number, page in enumerate(STORY) if page.labels.get("namespace") == "gone")
    told.exporter.pages[path(place)] = None
    eventually(lambda: metrics.read("v2", told.window()) is None)
    assert metrics.reasons["v2"] == "Deployment gone/shop has no series, or none any more"


def test_a_server_that_hangs_tells_nothing(told: Told) -> None:
    metrics = PrometheusMetrics(told.server.url, "linkerd", lambda _: Target("idle", ("shop",), ()), timeout=1.0)
    assert metrics.read("v2", told.window()) is not None
    told.server.pause()
    try:
        began = time.monotonic()
        assert metrics.read("v2", told.window()) is None
        assert time.monotonic() - began < 10
        assert "does not answer" in metrics.reasons["v2"]
    finally:
        told.server.resume()
    eventually(lambda: metrics.read("v2", told.window()) is not None)
    assert metrics.reasons["v2"] == ""


def test_a_server_that_is_not_there_tells_nothing() -> None:
    port = ReservedPort()
    metrics = PrometheusMetrics(f"http://{LOOPBACK}:{port.number}", "istio", lambda _: Target("x", ("shop",), ()))
    assert metrics.read("v2", 60.0) is None
    assert "does not answer" in metrics.reasons["v2"]
    port.release()


def test_partial_and_wrong_answers_of_the_real_server(told: Told) -> None:
    if "warnings" in told.server.ask("quantile(1.5, up)"):  # a server from a PATH may be too old to warn
        with pytest.raises(Unavailable, match="tells a part only"):
            told.client.query("quantile(1.5, up)")
    with pytest.raises(Unavailable, match=r"answers 400: .*parse error"):
        told.client.query("up{")
    with pytest.raises(Unavailable, match="answers with a scalar"):
        told.client.query("1")
    with pytest.raises(Unavailable, match="answers 404"):
        Client(told.server.url.removesuffix("/prometheus")).query("up")
    assert told.client.query("absent_metric") == []
    # It remarks that the counter's name has no `_total`, which takes nothing from the answer.
    assert told.client.query("increase(nginx_ingress_controller_requests[1h])")


# --- the local mesh's Envoy -----------------------------------------------------------------------------------------

BACKEND = """
import sys, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16

    def do_GET(self):
        body = os.environ["VERSION"].encode()
        self.send_response(500 if self.path == "/fail" and body == b"v2" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.mark.local
def test_envoy_tells_prometheus_what_it_tells_the_local_mesh(tmp_path: Path) -> None:
    (tmp_path / "backend.py").write_text(BACKEND)
    command, state = (sys.executable, str(tmp_path / "backend.py"), "{port}"), tmp_path / "state"
    clusters = {"v1": "shop-stable", "v2": "shop-canary"}
    services = {service: Service(version, command, env={"VERSION": version}) for version, service in clusters.items()}
    names = {"service": "shop", "stable": "shop-stable", "canary": "shop-canary"}
    (tmp_path / "prometheus").mkdir()
    with LocalMesh(state) as mesh:
        url = mesh.start(services, **names)
        admin = urllib.parse.urlsplit((read_object(state / RUNTIME) or {})["admin"])
        assert admin.port is not None
        server = Prometheus(tmp_path / "prometheus", program(), [Scraped(admin.port, "/stats/prometheus")])
        server.start()
        try:
            _compare(server, state, url, clusters, names)
        finally:
            server.stop()


def _compare(server: Prometheus, state: Path, url: str, clusters: Mapping[str, str], names: Mapping[str, str]) -> None:
    router = LocalRouter(state / "trafficsplit.json", **names)
    local = LocalMetrics(state / METRICS, clusters)
    metrics = PrometheusMetrics(
        server.url, "envoy", lambda version: Target("shop", (), (clusters[version],)), timeout=PATIENCE
    )
    client = Client(server.url, timeout=PATIENCE)
    eventually(lambda: client.query("up == 1"))
    split = router.set(500, resource_version=router.get().resource_version)
    eventually(lambda: router.settled(split))
    time.sleep(3)
    began = time.time() - 1.5
    _ask(url, "/", 300)
    _ask(url, "/fail", 100)
    time.sleep(3)
    for version in clusters:
        window = time.time() - began
        ours, theirs = metrics.read(version, window), local.read(version, window)
        assert ours is not None, metrics.reasons[version]
        assert theirs is not None
        assert (ours.requests, ours.failures) == (theirs.requests, theirs.failures)
        assert ours.p99_ms == pytest.approx(theirs.p99_ms)
        assert ours.window == pytest.approx(theirs.window, abs=3)
        assert (ours.failures > 0) == (version == "v2")
    both = PrometheusMetrics(server.url, "envoy", lambda _: Target("shop", (), tuple(clusters.values())))
    sample = both.read("v1 and v2", time.time() - began)
    assert sample is not None
    assert sample.requests == 400
    server.stop()
    assert metrics.read("v1", 10.0) is None
    assert "does not answer" in metrics.reasons["v1"]


def _ask(url: str, path: str, times: int) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    for _ in range(times):
        connection.request("GET", path)
        connection.getresponse().read()
    connection.close()
