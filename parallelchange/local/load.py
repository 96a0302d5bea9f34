"""An open-loop load on the shop: requests leave when they are due, whatever became of the ones before.

`python -m parallelchange.local.load --url … --log acked.jsonl --stats stats.json` runs it as a process of its
own, so that nobody else's work delays it. It stops on SIGTERM, waits for what is in flight and exits 0.

The log has one JSON object a line for each write, in the order of their ends: `t`, `version`, `kind`
(`create`, `rename`, `email`, `order`), `outcome` (`acknowledged`, `unknown`), `id` (of the customer; null
when a create's answer is missing), and as the kind has them `name`, `email`, `item`, `quantity`, `order`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from parallelchange.local.tally import Book, Log, Tally

__all__ = ["Call", "LoadGenerator", "arrivals", "main"]

MIX = {"read": 40, "list": 10, "orders": 10, "create": 5, "rename": 15, "email": 10, "order": 10}
"""Requests of each kind in a hundred: 60 reads and 40 writes."""
LATE = 1.0
"""Seconds behind its schedule from which a request counts as late."""
NAMES = (
    "Ada {}",
    "Grace  {} Hopper",
    " {} Liskov",
    "王{}",
    "{} الخوارزمي",
    "O'Hara {}",
    "Zoe\u0301 {} ",
    "{}\t🦀 x",
)
REJECTED = range(400, 500)


def arrivals(rate: float, rng: random.Random) -> Iterator[float]:
    """When requests are due, in seconds from the start: Poisson, `rate` a second on average."""
    due = 0.0
    while True:
        due += rng.expovariate(rate)
        yield due


@dataclass
class Call:
    """One request and what it expects."""

    kind: str
    method: str
    path: str
    customer: int | None = None
    values: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    stamp: int | None = None

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET"


class LoadGenerator:
    """Sends requests on schedule, keeps what was acknowledged, and compares what it reads with it.

    Args:
        base_url: Where the shop is served.
        rate: Requests a second.
        customers: Ids of customers that exist.
        seed: Of the schedule and the mix.
        timeout_s: Seconds after which a request counts as unanswered.
        log: Where writes are logged; appended to.
        stats: Where figures are written twice a second.
        stage_file: Where someone else writes the name of the current stage.
        version_header: Header that tells which version answered.
    """

    def __init__(
        self,
        base_url: str,
        *,
        log: Path,
        stats: Path,
        rate: float = 150.0,
        customers: Sequence[int] = range(1, 200_001),
        seed: int = 1,
        timeout_s: float = 5.0,
        stage_file: Path | None = None,
        version_header: str = "x-shop-version",
    ) -> None:
        self.base_url, self.rate, self.customers = base_url.rstrip("/"), rate, customers
        self.timeout_s, self.stats, self.stage_file = timeout_s, stats, stage_file
        self.version_header = version_header
        self.rng = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        self.book, self.tally, self.log = Book(), Tally(), Log(log)
        self.stage, self.run_id = "", os.urandom(4).hex()
        self._recent: deque[int] = deque(maxlen=500)
        self._tasks: set[asyncio.Task[None]] = set()
        self._began = time.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set, then wait for what is in flight."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=20)
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            # aiohttp sends a GET or PUT again when its connection breaks: that would hide a dropped request.
            session._retry_connection = False  # noqa: SLF001 - there is no public switch
            self._began = time.monotonic()
            reporter = asyncio.create_task(self._report())
            try:
                await self._send_all(session, stop)
                if self._tasks:
                    await asyncio.wait(set(self._tasks), timeout=self.timeout_s + 1)
            finally:
                reporter.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reporter
                self.log.close()
                self.write_stats(running=False)

    async def _send_all(self, session: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        for due in arrivals(self.rate, self.rng):
            wait = self._began + due - time.monotonic()
            if wait > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), wait)
            elif self.tally.sent % 10 == 0:
                await asyncio.sleep(0)  # behind schedule: let answers in, too
            if stop.is_set():
                return
            self.tally.sent += 1
            self.tally.late += wait < -LATE
            task = asyncio.create_task(self._send(session, self.choose(), self._began + due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def choose(self) -> Call:
        """Draw the next request; a write for which no customer is free becomes a read."""
        kind = self.rng.choices(tuple(MIX), tuple(MIX.values()))[0]
        return self._write(kind) or self._read(kind)

    def _write(self, kind: str) -> Call | None:
        token = f"{self.run_id}-{self.tally.sent}"
        name, email = self.rng.choice(NAMES).format(token), f"{token}@example.test"
        if kind == "create":
            return Call(kind, "POST", "/customers", None, {"name": name, "email": email}, 201)
        if kind not in {"rename", "email", "order"}:
            return None
        drawn = (self._any_customer() for _ in range(20))
        customer = next((number for number in drawn if self.book.claim(number)), None)
        path = f"/customers/{customer}"
        if customer is None:
            return None
        if kind == "order":
            order = {"item": f"item {token}", "quantity": self.rng.randint(1, 5)}
            return Call(kind, "POST", f"{path}/orders", customer, order, 201)
        if kind == "rename":
            return Call(kind, "PUT", path, customer, {"name": name})
        return Call(kind, "PATCH", f"{path}/email", customer, {"email": email})

    def _read(self, kind: str) -> Call:
        number = self._any_customer()
        if kind == "list":
            return Call(kind, "GET", f"/customers?after={number}&limit=20")
        if kind == "orders":
            return Call(kind, "GET", f"/customers/{number}/orders", number)
        return Call("read", "GET", f"/customers/{number}", number, stamp=self.book.stamp(number))

    def _any_customer(self) -> int:
        """Half the time one that was written lately, so that the versions read what the other wrote."""
        return self.rng.choice(self._recent if self._recent and self.rng.random() < 0.5 else self.customers)  # noqa: PLR2004

    async def _send(self, session: aiohttp.ClientSession, call: Call, due: float) -> None:
        version, stage, status, answer = "none", self.stage, 0, None
        try:
            async with session.request(
                call.method, self.base_url + call.path, json=call.values if call.writes else None
            ) as response:
                version, status = response.headers.get(self.version_header, "none"), response.status
                text = await response.text()
                self.tally.answered += 1
            problem = None if status == call.status else f"answered {status}: {text[:300]}"
            answer = json.loads(text) if problem is None else None
        except TimeoutError:
            problem = f"no answer within {self.timeout_s:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
        now = time.time()
        failure = problem and {"kind": call.kind, "id": call.customer, "status": status, "text": problem}
        self.tally.add(now, version, stage, (time.monotonic() - due) * 1000, failure or None)
        if call.writes:
            self.settle(call, status, answer, {"t": now, "version": version})
        elif call.kind == "read" and call.customer is not None and isinstance(answer, dict):
            read = {name: answer.get(name) for name in ("name", "email")}
            if wrong := self.book.differs(call.customer, call.stamp, read):
                self.tally.misread({"t": now, "id": call.customer, "version": version, "text": wrong})

    def settle(self, call: Call, status: int, answer: Any, entry: dict[str, Any]) -> None:
        """Book what became of a write, and log it unless it was refused.

        Args:
            call: The write.
            status: What it was answered with; 0 for no answer.
            answer: The answer's content when it was the expected one, else None.
            entry: When it was and which version answered.
        """
        customer = call.customer
        shown = {name: value for name, value in call.values.items() if name in {"name", "email"}}
        if isinstance(answer, dict) and isinstance(answer.get("id"), int):
            customer = answer["id"] if customer is None else customer
            extra = {"order": answer["id"]} if call.kind == "order" else {}
            outcome = {"kind": call.kind, "outcome": "acknowledged", "id": customer}
            self.log.add({**entry, **outcome, **call.values, **extra})
            self.book.acknowledged(customer, shown)
            self._recent.append(customer)
            return
        if status in REJECTED:
            if customer is not None:
                self.book.refused(customer)
            return
        self.log.add({**entry, "kind": call.kind, "outcome": "unknown", "id": customer, **call.values})
        if customer is not None:
            (self.book.unknown if shown else self.book.refused)(customer)

    async def _report(self) -> None:
        for tick in range(10**9):
            if self.stage_file is not None:
                with contextlib.suppress(OSError, UnicodeDecodeError):
                    self.stage = self.stage_file.read_text(encoding="utf-8").strip()
            if tick % 5 == 0:
                self.write_stats(running=True)
            await asyncio.sleep(0.1)

    def write_stats(self, *, running: bool) -> None:
        """Replace the figures on disk in one step, so that a reader never sees half of them."""
        now, elapsed = time.time(), time.monotonic() - self._began
        figures = {
            "t": now,
            "running": running,
            "elapsed_s": round(elapsed, 2),
            "stage": self.stage,
            "rate_wanted": self.rate,
            "rate_achieved": round(self.tally.sent / elapsed, 2) if elapsed else 0.0,
            "in_flight": len(self._tasks),
            "acknowledged_writes": self.log.acknowledged,
            "uncertain": len(self.book.uncertain),
            **self.tally.to_json(now),
        }
        part = self.stats.with_name(self.stats.name + ".part")
        part.write_text(json.dumps(figures, ensure_ascii=False), encoding="utf-8")
        part.replace(self.stats)


async def _run(generator: LoadGenerator, duration: float | None) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if duration is not None:
        loop.call_later(duration, stop.set)
    await generator.run(stop)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m parallelchange.local.load", description="Load the shop.")
    parser.add_argument("--url", required=True, help="where the shop is served")
    parser.add_argument("--log", required=True, type=Path, help="file to append acknowledged writes to")
    parser.add_argument("--stats", required=True, type=Path, help="file to keep the figures in")
    parser.add_argument("--stage-file", type=Path, help="file that has the name of the current stage")
    parser.add_argument("--rate", type=float, default=150.0, help="requests a second (default: %(default)s)")
    parser.add_argument("--customers", type=int, default=200_000, help="ids 1 to this exist (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of schedule and mix (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds to wait for an answer")
    parser.add_argument("--duration", type=float, help="seconds to run; without it until SIGTERM")
    given = parser.parse_args(arguments)
    files = {"log": given.log, "stats": given.stats, "stage_file": given.stage_file}
    customers = range(1, given.customers + 1)
    pace = {"rate": given.rate, "seed": given.seed, "timeout_s": given.timeout}
    generator = LoadGenerator(given.url, customers=customers, **files, **pace)
    asyncio.run(_run(generator, given.duration))


if __name__ == "__main__":
    main()
