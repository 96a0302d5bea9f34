"""Who runs the rollout, as a Lease: another pod goes on when its holder is gone.

The official client's leader election neither lets go of a Lease nor gives up waiting for one, so it is not used.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from parallelchange.adapters.kubernetes.client import Cluster, Object
from parallelchange.adapters.kubernetes.kinds import LEASE
from parallelchange.errors import Busy, NotFound, ParallelChangeError

__all__ = ["Lease"]

DURATION = 15.0
"""Seconds after which a Lease that is not renewed may be taken."""
_RENEW = 5.0
_LOOK = 1.0
_RETRY = 0.5


class Lease:
    """A context manager that holds a Lease, and renews it from a thread of its own.

    Args:
        cluster: The namespace.
        name: The Lease's name.
        stand_by: Wait for as long as another holds it; else give up once the holder is seen to be alive.
        tell: Told whom it waits for.
        duration: Seconds after which an unrenewed Lease may be taken.
    """

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        *,
        stand_by: bool = False,
        tell: Callable[[str], None] = lambda _: None,
        duration: float = DURATION,
    ) -> None:
        self.cluster, self.name, self.stand_by, self.tell, self.duration = cluster, name, stand_by, tell, duration
        pod = os.environ.get("HOSTNAME") or socket.gethostname()
        self.identity = f"{pod}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
        self._stop, self._lost, self._why = threading.Event(), "", ""
        self._renewed = 0.0
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._acquire()
        self._thread = threading.Thread(target=self._keep, name="parallelchange-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
        if not self._lost:
            self._let_go()

    def check(self) -> None:
        """Make sure that it is still ours.

        Raises:
            Busy: It is not, or may not be.
        """
        give_up = time.monotonic() + self.cluster.patience
        # While it is overdue nothing may be done; where nobody else took it, it is ours again once it is renewed.
        while not self._lost and time.monotonic() - self._renewed > self.duration:
            if time.monotonic() > give_up:
                self._lost = f"it could not be renewed in time: {self._why}"
            time.sleep(_RETRY)
        if self._lost:
            raise Busy(
                f"{self.cluster.full(LEASE, self.name)} is lost: {self._lost}",
                hint="another rollout may go on; see `parallelchange status`",
            )

    def _acquire(self) -> None:
        """Take it when it is free, or once it was not renewed for its duration, by our own clock."""
        seen: tuple[str, float] | None = None
        tried, told = 0.0, ""
        while True:
            live = self.cluster.find(LEASE, self.name)
            if live is not None and self._holder(live) == self.identity:
                self._renewed = tried  # it was taken, and only the answer was lost
                return
            now = tried = time.monotonic()
            if live is None:
                taken = self._try(lambda: self.cluster.create(LEASE, self._body(None)))
            else:
                spec = live.get("spec") or {}
                holder, version = self._holder(live), live["metadata"]["resourceVersion"]
                renewed_beside_us = seen is not None and seen[0] != version
                if seen is None or renewed_beside_us:
                    seen = (version, now)
                if holder and renewed_beside_us and not self.stand_by:
                    raise Busy(
                        f"{self.cluster.full(LEASE, self.name)} is held by {holder}, which is alive",
                        hint="that rollout goes on; wait for it, or stop it first",
                    )
                patience = float(spec.get("leaseDurationSeconds") or self.duration)
                if holder and now - seen[1] < patience:
                    if told != holder:
                        self.tell(f"waiting for {self.cluster.full(LEASE, self.name)}, held by {holder}")
                    told = holder
                    time.sleep(_LOOK)
                    continue
                body = self._body(live)
                taken = self._try(lambda body=body: self.cluster.patch(LEASE, self.name, body))  # type: ignore[misc]
            if taken:
                self._renewed = now
                return

    def _try(self, write: Callable[[], Object]) -> bool:
        try:
            write()
        except Busy:
            return False
        return True

    def _keep(self) -> None:
        pause = min(_RENEW, self.duration / 3)
        # Less patience: a try that hangs must not use up the time for the next ones.
        cluster = self.cluster.within(self.duration / 3)
        while not self._lost and not self._stop.wait(pause if self._renew(cluster) else _RETRY):
            pass

    def _renew(self, cluster: Cluster) -> bool:
        """Renew it once; whether that was done is what it answers."""
        began = time.monotonic()
        try:
            live = cluster.read(LEASE, self.name)
            holder = self._holder(live)
            if holder != self.identity:
                self._lost = f"{holder or 'nobody'} holds it"
                return False
            cluster.patch(LEASE, self.name, self._body(live, renew=True))
        except NotFound:
            self._lost = "somebody has deleted it"
            return False
        except ParallelChangeError as error:
            self._why = error.message  # `check` tells once it is too late
            return False
        self._renewed = began
        return True

    def _let_go(self) -> None:
        cluster = self.cluster.within(self.duration / 3)
        try:
            live = cluster.read(LEASE, self.name)
            if self._holder(live) == self.identity:
                version = {"resourceVersion": live["metadata"]["resourceVersion"]}
                cluster.patch(LEASE, self.name, {"metadata": version, "spec": {"holderIdentity": None}})
        except ParallelChangeError:
            pass  # it runs out by itself

    @staticmethod
    def _holder(live: Object) -> str:
        return (live.get("spec") or {}).get("holderIdentity") or ""

    def _body(self, live: Object | None, *, renew: bool = False) -> Object:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = {"holderIdentity": self.identity, "leaseDurationSeconds": int(self.duration), "renewTime": now}
        if live is None:
            metadata = {"name": self.name}
            return {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": metadata,
                "spec": {**spec, "acquireTime": now, "leaseTransitions": 0},
            }
        if not renew:
            spec |= {"acquireTime": now, "leaseTransitions": (live["spec"].get("leaseTransitions") or 0) + 1}
        return {"metadata": {"resourceVersion": live["metadata"]["resourceVersion"]}, "spec": spec}
