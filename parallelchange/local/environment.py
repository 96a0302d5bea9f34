"""The local mesh as one thing: the services, Envoy before them, and what keeps both in step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from parallelchange.adapters.local_files import SUPERVISOR_LOCK, TRAFFIC_SPLIT, locked
from parallelchange.adapters.local_router import LocalRouter, TrafficSplit
from parallelchange.errors import Unavailable, UsageError
from parallelchange.local.envoy import Envoy
from parallelchange.local.mesh import POLL, SCRAPE, Follower, Series
from parallelchange.local.process import LOOPBACK
from parallelchange.local.supervisor import Service, Supervisor

__all__ = ["LocalMesh"]

_TICK = 0.05
_START_LIMIT = 30.0


class _Stepper(Protocol):
    def step(self) -> None: ...


class LocalMesh:
    """Runs the services of a change behind Envoy on this machine, by the split in `state_dir`.

    One thread starts all children and looks after them, for as long as the mesh lives; two more follow the
    split and read the counters.

    Args:
        state_dir: Where the files of `local_files` are kept. One mesh at a time uses it.
    """

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self._stop, self._up = threading.Event(), threading.Event()
        self._faults: dict[str, Exception] = {}
        self._threads: list[threading.Thread] = []
        self._url = ""

    def start(
        self,
        services: Mapping[str, Service],
        *,
        service: str,
        stable: str,
        canary: str,
        patience: float = _START_LIMIT,
    ) -> str:
        """Start everything; every service that has a share of the traffic is ready when this returns.

        Args:
            services: The two backends, by their names in the split, and whatever runs beside them.
            service: The root service.
            stable: Backend that runs the old version.
            canary: Backend that runs the new version.
            patience: Seconds the services have to become ready.

        Returns:
            The address clients call.

        Raises:
            Busy: Another mesh uses the directory.
            Unavailable: Something needed did not start; nothing is left running.
        """
        if self._threads:
            raise UsageError("this mesh was started before; make a new one")
        missing = {stable, canary} - set(services)
        if missing:
            raise UsageError(f"no service {', '.join(sorted(missing))} was given, which the split names")
        router = LocalRouter(self.state_dir / TRAFFIC_SPLIT, service=service, stable=stable, canary=canary)
        router.create()
        self._run("services", lambda: self._serve(services, patience))
        try:
            self._await_up(patience + _START_LIMIT)
        except Exception:
            self.stop()
            raise
        return self._url

    def _await_up(self, patience: float) -> None:
        if not self._up.wait(patience):
            raise Unavailable(f"the local mesh did not start within {patience:g} s")
        self.check()

    def check(self) -> None:
        """Make sure that all is well.

        Raises:
            Exception: The newest error of a part that has not recovered from it since.
        """
        faults = list(self._faults.values())
        if faults:
            raise faults[-1]
        if self._threads and not self._stop.is_set() and not all(thread.is_alive() for thread in self._threads):
            raise Unavailable("a thread of the local mesh has ended", hint="start the mesh again")

    def stop(self) -> None:
        """Stop following, then Envoy, then the services."""
        self._stop.set()
        for thread in tuple(self._threads):
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - it is handed to `check`, which raises it
                self._faults[name] = error
            finally:
                self._up.set()

        thread = threading.Thread(target=guarded, name=f"parallelchange-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _serve(self, services: Mapping[str, Service], patience: float) -> None:
        """The thread all children belong to: ends them before it ends itself."""
        with ExitStack() as stack:
            stack.enter_context(locked(self.state_dir / SUPERVISOR_LOCK, patience=1.0))
            envoy = Envoy(self.state_dir / "envoy")
            self._url = f"http://{LOOPBACK}:{envoy.port}"
            about = {"mesh": self._url, "admin": f"http://{LOOPBACK}:{envoy.admin_port}"}
            supervisor = Supervisor(self.state_dir, services, about=about)
            stack.callback(supervisor.stop)
            stack.callback(envoy.stop)
            split = TrafficSplit.load(self.state_dir / TRAFFIC_SPLIT)
            self._await_ready(supervisor, [name for name, weight in split.backends.items() if weight], patience)
            envoy.start(split, {name: supervisor.ports[name] for name in split.backends})
            follower = Follower(self.state_dir, envoy, split.backends)
            stack.callback(follower.close)
            follower.step()
            helpers = [
                self._run("split", lambda: self._repeat("split", follower, POLL)),
                self._run("metrics", self._metrics(envoy, split)),
            ]
            stack.callback(self._end, helpers)
            self._up.set()
            self._watch(supervisor, envoy)

    def _end(self, helpers: list[threading.Thread]) -> None:
        self._stop.set()
        for helper in helpers:
            helper.join()

    def _watch(self, supervisor: Supervisor, envoy: Envoy) -> None:
        while not self._stop.wait(_TICK):
            self._note("services", supervisor.step)
            self._note("envoy", envoy.check)

    def _metrics(self, envoy: Envoy, split: TrafficSplit) -> Callable[[], None]:
        series = Series(self.state_dir, envoy, split.backends)
        return lambda: self._repeat("metrics", series, SCRAPE)

    def _repeat(self, name: str, part: _Stepper, pause: float) -> None:
        while not self._stop.is_set():
            self._note(name, part.step)
            self._stop.wait(pause)

    def _note(self, name: str, step: Callable[[], None]) -> None:
        """Do a step; its error stays until a later step of the same part goes well."""
        try:
            step()
        except Exception as fault:  # noqa: BLE001 - `check` raises it; the services run on meanwhile
            self._faults[name] = fault
        else:
            self._faults.pop(name, None)

    def _await_ready(self, supervisor: Supervisor, names: list[str], patience: float) -> None:
        deadline = time.monotonic() + patience
        while not self._stop.wait(_TICK):
            supervisor.step()
            waiting = [name for name in names if not supervisor.ready(name)]
            if not waiting:
                return
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"{waiting[0]} was not ready within {patience:g} s; "
                    f"its log ends with:\n{supervisor.log_of(waiting[0])}"
                )
