"""The load generator: its schedule, its percentiles, and what it takes for acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from parallelchange.local.load import MIX, Call, LoadGenerator, arrivals
from parallelchange.local.tally import Book, Histogram, Tally, exact


@pytest.fixture
def generator(tmp_path: Path) -> Any:
    made = LoadGenerator("http://127.0.0.1:1", log=tmp_path / "log", stats=tmp_path / "stats")
    yield made
    made.log.close()


def logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_arrivals_come_at_the_rate_and_in_order() -> None:
    due = list(islice(arrivals(150, random.Random(1)), 15_000))
    assert due == sorted(due)
    assert due[-1] == pytest.approx(100, rel=0.03)


def test_arrivals_are_the_same_for_the_same_seed() -> None:
    first, second = (list(islice(arrivals(10, random.Random(7)), 50)) for _ in range(2))
    assert first == second


@given(
    st.lists(st.floats(min_value=0.02, max_value=60_000), min_size=1, max_size=300),
    st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0]),
)
def test_histogram_is_within_two_percent(values: list[float], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    assert histogram.percentile(share) == pytest.approx(exact(values, share), rel=0.02)


def test_histogram_of_nothing_says_nothing() -> None:
    assert Histogram().percentile(0.5) is None
    assert exact([], 0.5) is None


def test_recent_figures_forget() -> None:
    tally = Tally()
    tally.add(100.0, "v1", "5%", 900.0, {"text": "answered 500"})
    tally.add(107.0, "v1", "5%", 10.0, None)
    figures = tally.to_json(108.0)
    assert figures["versions"]["v1"]["requests"] == 2
    assert figures["versions"]["v1"]["recent"] == {
        "requests": 1,
        "failures": 0,
        "p50_ms": 10.0,
        "p99_ms": 10.0,
    }
    assert figures["stages"]["5%"]["v1"]["failures"] == figures["failed_requests"] == 1


def test_one_write_in_flight_for_a_customer() -> None:
    book = Book()
    assert book.claim(1)
    assert not book.claim(1)
    book.acknowledged(1, {"name": "Ada"})
    assert book.claim(1)
    book.unknown(1)
    assert not book.claim(1)


def test_reads_are_compared_only_when_no_write_overlaps() -> None:
    book = Book()
    book.claim(1)
    during = book.stamp(1)
    book.acknowledged(1, {"name": "Ada"})
    before = book.stamp(1)
    assert book.differs(1, during, {"name": "Old"}) is None
    assert book.differs(1, before, {"name": "Old"}) == "name is 'Old', acknowledged was 'Ada'"
    assert book.differs(1, before, {"name": "Ada"}) is None
    book.claim(1)
    book.acknowledged(1, {"name": "Grace"})
    assert book.differs(1, before, {"name": "Ada"}) is None


def test_what_nobody_wrote_is_learnt_from_its_first_read() -> None:
    book = Book()
    assert book.differs(1, book.stamp(1), {"name": "Ada", "email": "a@example.test"}) is None
    assert book.differs(1, book.stamp(1), {"name": None, "email": "a@example.test"}) is not None


@pytest.mark.parametrize(
    ("status", "answer", "outcome"),
    [
        (200, {"id": 7}, "acknowledged"),
        (404, None, None),
        (500, None, "unknown"),
        (0, None, "unknown"),
        (200, None, "unknown"),
    ],
)
def test_settling_a_rename(
    generator: LoadGenerator, tmp_path: Path, status: int, answer: Any, outcome: str | None
) -> None:
    generator.book.claim(7)
    generator.settle(Call("rename", "PUT", "/customers/7", 7, {"name": "Ada"}), status, answer, {"t": 1.0})
    assert [entry["outcome"] for entry in logged(tmp_path / "log")] == ([outcome] if outcome else [])
    assert (7 in generator.book.uncertain) is (outcome == "unknown")
    assert generator.book.claim(7) is (outcome != "unknown")
    assert generator.book.known.get(7) == ({"name": "Ada"} if outcome == "acknowledged" else None)


def test_an_order_of_unknown_outcome_leaves_the_customer_certain(generator: LoadGenerator, tmp_path: Path) -> None:
    generator.book.claim(7)
    call = Call("order", "POST", "/customers/7/orders", 7, {"item": "x", "quantity": 1}, 201)
    generator.settle(call, 0, None, {"t": 1.0})
    assert logged(tmp_path / "log")[0]["outcome"] == "unknown"
    assert generator.book.claim(7)


def test_a_created_customer_is_known_by_the_answers_id(generator: LoadGenerator, tmp_path: Path) -> None:
    values = {"name": "Ada", "email": "a@example.test"}
    generator.settle(Call("create", "POST", "/customers", None, values, 201), 201, {"id": 9}, {"t": 1.0})
    assert logged(tmp_path / "log")[0] == {
        "t": 1.0, "kind": "create", "outcome": "acknowledged", "id": 9, **values
    }  # fmt: skip
    assert generator.book.known[9] == values


def test_the_mix_is_sixty_to_forty(generator: LoadGenerator) -> None:
    calls = [generator.choose() for _ in range(4000)]
    assert sum(call.writes for call in calls) / len(calls) == pytest.approx(0.4, abs=0.03)
    assert sum(MIX.values()) == 100


def test_a_write_without_a_free_customer_becomes_a_read(generator: LoadGenerator) -> None:
    generator.customers = (1,)
    calls = [generator.choose() for _ in range(200)]
    assert sum(call.writes and call.customer == 1 for call in calls) == 1


async def shop(store: dict[int, dict[str, Any]], *, stall: float = 0.0, forget: bool = False) -> web.AppRunner:
    """A shop of one version in memory, which can be slow and can lose renames."""

    async def one(request: web.Request) -> web.Response:
        number = int(request.match_info["id"])
        customer = store.setdefault(number, {"id": number, "name": "Ada", "email": "a@example.test"})
        if request.method in {"PUT", "PATCH"} and not forget:
            customer |= await request.json()
        await asyncio.sleep(stall)
        return web.json_response(customer, headers={"x-shop-version": "v1"})

    async def some(request: web.Request) -> web.Response:
        made = request.method == "POST"
        number = 1000 + len(store)
        if made and request.path == "/customers":
            store[number] = {"id": number, **await request.json()}
        await asyncio.sleep(stall)
        return web.json_response({"id": number}, status=201 if made else 200, headers={"x-shop-version": "v1"})

    app = web.Application()
    app.router.add_route("*", "/customers", some)
    app.router.add_route("*", "/customers/{id}", one)
    app.router.add_route("*", "/customers/{id}/email", one)
    app.router.add_route("*", "/customers/{id}/orders", some)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


def load(tmp_path: Path, seconds: float, *, rate: float = 200, timeout_s: float = 2, **faults: Any) -> dict[str, Any]:
    """Load a shop for a while; answers the figures."""
    (tmp_path / "stage").write_text("5%\n")

    async def run() -> None:
        runner = await shop({}, **faults)
        port = runner.addresses[0][1]
        made = LoadGenerator(
            f"http://127.0.0.1:{port}", log=tmp_path / "log", stats=tmp_path / "stats", rate=rate,
            timeout_s=timeout_s, customers=range(1, 50), stage_file=tmp_path / "stage",
        )  # fmt: skip
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, stop.set)
        with contextlib.closing(made.log):
            await made.run(stop)
        await runner.cleanup()

    asyncio.run(run())
    return json.loads((tmp_path / "stats").read_text())


def test_loads_a_shop_and_finds_nothing_wrong(tmp_path: Path) -> None:
    figures = load(tmp_path, 1.5)
    assert figures["sent"] == figures["answered"] > 200
    assert (figures["failed_requests"], figures["wrong_reads"], figures["running"]) == (0, 0, False)
    assert figures["acknowledged_writes"] == len(logged(tmp_path / "log")) > 50
    assert figures["stages"]["5%"]["v1"]["requests"] > 200


def test_finds_reads_that_miss_an_acknowledged_write(tmp_path: Path) -> None:
    figures = load(tmp_path, 1.0, forget=True)
    assert figures["wrong_reads"] > 0
    assert "acknowledged was" in figures["wrong"][0]["text"]


def test_keeps_sending_when_nobody_answers(tmp_path: Path) -> None:
    began = time.monotonic()
    figures = load(tmp_path, 1.0, timeout_s=0.4, stall=1)
    assert time.monotonic() - began < 10
    assert figures["sent"] > 120
    assert figures["failed_requests"] == figures["sent"]
    assert figures["versions"]["none"]["p50_ms"] >= 390
    assert figures["failures"][0]["text"] == "no answer within 0.4 s"
    assert len(figures["failures"]) == 20
    assert {entry["outcome"] for entry in logged(tmp_path / "log")} == {"unknown"}


def test_latency_counts_from_when_a_request_was_due(tmp_path: Path) -> None:
    figures = load(tmp_path, 0.8, stall=0.1)
    assert figures["versions"]["v1"]["p50_ms"] >= 99
    assert math.isclose(figures["rate_wanted"], 200)


def test_as_a_process_it_stops_on_sigterm(tmp_path: Path) -> None:
    stats = tmp_path / "stats"
    command = [sys.executable, "-m", "parallelchange.local.load", "--url", "http://127.0.0.1:1"]
    command += ["--log", str(tmp_path / "log"), "--stats", str(stats), "--rate", "20"]
    with subprocess.Popen(command) as process:
        try:
            deadline = time.monotonic() + 20
            while not (stats.exists() and json.loads(stats.read_text())["sent"]):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.terminate()
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
    figures = json.loads(stats.read_text())
    assert (figures["running"], figures["in_flight"]) == (False, 0)
    assert figures["failed_requests"] == figures["sent"] > 0
