"""The local mesh: a real Envoy before two real processes."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from parallelchange.adapters.local_files import METRICS, TRAFFIC_SPLIT, read_object
from parallelchange.adapters.local_metrics import LocalMetrics
from parallelchange.adapters.local_router import LocalRouter
from parallelchange.adapters.local_workloads import LocalWorkloads
from parallelchange.errors import Busy, Unavailable
from parallelchange.local.environment import LocalMesh
from parallelchange.local.supervisor import Service

pytestmark = [pytest.mark.local, pytest.mark.timeout(60)]

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
RUN = """
import sys
from pathlib import Path
from parallelchange.local.environment import LocalMesh
from parallelchange.local.supervisor import Service
command = (sys.executable, sys.argv[2], "{port}")
services = {
    "shop-stable": Service("v1", command, env={"VERSION": "v1"}),
    "shop-canary": Service("v2", command, env={"VERSION": "v2"}),
}
with LocalMesh(Path(sys.argv[1])) as mesh:
    print(mesh.start(services, service="shop", stable="shop-stable", canary="shop-canary"), flush=True)
    sys.stdin.read()
"""
NAMES = {"service": "shop", "stable": "shop-stable", "canary": "shop-canary"}


def services(source: Path) -> dict[str, Service]:
    def one(version: str) -> Service:
        command = (sys.executable, str(source), "{port}")
        return Service(version, command, env={"VERSION": version}, sources=(source,))

    return {"shop-stable": one("v1"), "shop-canary": one("v2")}


def eventually(true: Callable[[], Any], *, within: float = 10.0) -> Any:
    deadline = time.monotonic() + within
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)
    return found


def ask(port: int, path: str = "/") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Clients:
    """Two clients that ask all the time, over connections they keep."""

    def __init__(self, port: int, path: str = "/") -> None:
        self.port, self.path = port, path
        self.answers: list[tuple[float, int, str]] = []
        self._stop = threading.Event()

    @contextmanager
    def running(self) -> Iterator[Clients]:
        threads = [threading.Thread(target=self._ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def take(self, count: int) -> Counter[str]:
        """Versions that answered the next requests."""
        begun = time.monotonic() + 0.1
        found = eventually(
            lambda: len(found := [version for at, _, version in self.answers if at >= begun]) >= count and found
        )
        return Counter(found)

    def failed(self) -> list[tuple[float, int, str]]:
        return [answer for answer in self.answers if answer[1] != 200]

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                connection.request("GET", self.path)
                answer = connection.getresponse()
                self.answers.append((begun, answer.status, answer.read().decode()))
            except (OSError, http.client.HTTPException) as error:
                self.answers.append((begun, 0, repr(error)))
                connection.close()
            time.sleep(0.001)
        connection.close()


class Running:
    """A started mesh and the adapters onto it."""

    def __init__(self, folder: Path, mesh: LocalMesh, url: str) -> None:
        self.folder, self.mesh = folder, mesh
        self.port = int(url.rsplit(":", 1)[1])
        self.router = LocalRouter(folder / TRAFFIC_SPLIT, **NAMES)
        self.workloads = LocalWorkloads(folder, ["v1", "v2"])
        self.metrics = LocalMetrics(folder / METRICS, {"v1": "shop-stable", "v2": "shop-canary"})

    def move(self, weight: int) -> None:
        split = self.router.set(weight, resource_version=self.router.get().resource_version)
        eventually(lambda: self.router.settled(split))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("mesh")
    (folder / "backend.py").write_text(BACKEND)
    with LocalMesh(folder / "state") as mesh:
        url = mesh.start(services(folder / "backend.py"), **NAMES)
        found = Running(folder / "state", mesh, url)
        eventually(lambda: found.workloads.ready("v2"))
        yield found
        mesh.check()


def test_moving_the_weight_fails_no_request_and_gives_the_shares(running: Running) -> None:
    with Clients(running.port).running() as clients:
        assert set(clients.take(100)) == {"v1"}
        for weight, count, slack in ((50, 800, 30), (500, 600, 90)):
            running.move(weight)
            seen = clients.take(count)
            assert seen["v2"] / seen.total() * 1000 == pytest.approx(weight, abs=slack)
        running.move(1000)
        assert set(clients.take(100)) == {"v2"}
        for weight in range(0, 1001, 125):
            running.move(weight)
        running.move(0)
        assert set(clients.take(100)) == {"v1"}
    assert clients.failed() == []


def test_failures_are_counted_for_the_version_that_fails(running: Running) -> None:
    running.move(500)
    with Clients(running.port, "/fail").running() as clients:
        clients.take(300)
        time.sleep(2.5)  # the counters are read every second
        bad = eventually(lambda: running.metrics.read("v2", 2))
        good = running.metrics.read("v1", 2)
    running.move(0)
    assert bad.failures == bad.requests > 50
    assert good is not None
    assert (good.failures, good.requests > 50) == (0, True)
    assert 0 < good.p99_ms < 1000
    assert good.age < 3
    eventually(lambda: (quiet := running.metrics.read("v2", 2)) and quiet.requests == 0)


def test_a_version_without_a_share_goes_away_and_comes_back(running: Running) -> None:
    running.move(1000)
    running.move(0)
    workloads = running.workloads
    build, address = workloads.build("v2"), workloads.address("v2")
    assert build is not None
    assert build == workloads.build("v1"), "the same command and sources"
    with Clients(running.port).running() as clients:
        workloads.scale("v2", 0)
        eventually(lambda: workloads.ready("v2") == 0 and workloads.build("v2") is None)
        assert workloads.address("v2") is None
        clients.take(100)
        workloads.scale("v2", 1)
        eventually(lambda: workloads.ready("v2") == 1)
    assert (workloads.build("v2"), workloads.address("v2")) == (build, address)
    assert clients.failed() == []
    running.move(1000)
    assert ask(running.port) == (200, "v2")
    running.move(0)


def test_no_answer_from_a_dead_backend_is_a_failure(running: Running) -> None:
    running.workloads.scale("v2", 0)
    eventually(lambda: running.workloads.ready("v2") == 0 and running.workloads.build("v2") is None)
    running.move(1000)
    begun = time.time()
    assert [ask(running.port)[0] for _ in range(5)] == [503] * 5
    running.move(0)
    eventually(lambda: (seen := running.metrics.read("v2", time.time() - begun + 1)) and seen.failures >= 5)
    running.workloads.scale("v2", 1)
    eventually(lambda: running.workloads.ready("v2") == 1)


def test_a_crashed_copy_is_started_again(running: Running) -> None:
    runtime = read_object(running.folder / "runtime.json")
    assert runtime is not None
    pid = runtime["services"]["shop-canary"]["pid"]
    os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        now = read_object(running.folder / "runtime.json") or {}
        copy = now["services"]["shop-canary"]
        return copy["pid"] not in (None, pid) and copy["ready"] == 1

    eventually(replaced)


def test_a_bad_split_leaves_the_traffic_and_is_surfaced_until_it_is_mended(running: Running) -> None:
    path = running.folder / TRAFFIC_SPLIT
    good = path.read_text()
    path.write_text("{")

    def surfaced() -> bool:
        try:
            running.mesh.check()
        except Unavailable as error:
            return "trafficsplit.json" in error.message
        return False

    eventually(surfaced)
    assert ask(running.port) == (200, "v1")
    path.write_text(good)
    eventually(lambda: not surfaced())


def test_one_directory_has_one_mesh(running: Running) -> None:
    second = LocalMesh(running.folder)
    with pytest.raises(Busy):
        second.start(services(running.folder.parent / "backend.py"), **NAMES)
    assert ask(running.port) == (200, "v1")
    assert running.workloads.ready("v1") == 1


def test_only_one_copy_can_be_had(running: Running) -> None:
    with pytest.raises(Unavailable, match="0 or 1"):
        running.workloads.scale("v1", 2)
    with pytest.raises(Unavailable, match="v9"):
        running.workloads.scale("v9", 1)


def test_what_is_asked_for_and_what_is_neither_version_is_told(running: Running) -> None:
    assert [running.workloads.wanted(version) for version in ("v1", "v2", "v9")] == [1, 1, None]
    assert running.workloads.others() == ()
    assert LocalWorkloads(running.folder, ["v1"]).others() == ("service shop-canary runs v2",)
    running.workloads.scale("v2", 0)
    eventually(lambda: running.workloads.ready("v2") == 0)
    assert running.workloads.wanted("v2") == 0
    assert LocalWorkloads(running.folder, ["v1"]).others() == (), "what neither runs nor is asked for is nobody's"
    running.workloads.scale("v2", 1)
    eventually(lambda: running.workloads.ready("v2") == 1)


def test_what_does_not_start_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    broken = Service("v1", (sys.executable, "-c", "print('no such luck')"))
    with LocalMesh(tmp_path) as mesh, pytest.raises(Unavailable, match="no such luck"):
        mesh.start({"shop-stable": broken, "shop-canary": broken}, **NAMES, patience=1.0)
    workloads = LocalWorkloads(tmp_path, ["v1"])
    assert (workloads.ready("v1"), workloads.wanted("v1"), workloads.others()) == (None, None, ())
    assert not (tmp_path / "runtime.json").exists()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_killed_mesh_leaves_no_child(tmp_path: Path) -> None:
    state, backend = tmp_path / "state", tmp_path / "backend.py"
    backend.write_text(BACKEND)
    (tmp_path / "run.py").write_text(RUN)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "run.py"), str(state), str(backend)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline()
        assert ask(int(url.rsplit(":", 1)[1])) == (200, "v1")
        pids = children(process.pid)
        assert len(pids) == 3, "two services and Envoy"
        assert LocalWorkloads(state).ready("v1") == 1
        process.kill()
        process.wait()
    eventually(lambda: not any(alive(pid) for pid in pids))
    workloads = LocalWorkloads(state)
    assert (workloads.ready("v1"), workloads.build("v1"), workloads.address("v1")) == (None, None, None)
    assert (workloads.wanted("v1"), workloads.others()) == (None, None), "nobody says what became of its services"
    with pytest.raises(Unavailable, match="no supervisor"):
        workloads.scale("v1", 0)
