"""Waiting for the cluster to change: watches wake a rollout that waits.

A watch only wakes: what a decision rests on is always read anew, so one that stalls can mislead nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from parallelchange.adapters.kubernetes.client import Cluster
from parallelchange.adapters.kubernetes.kinds import Kind
from parallelchange.errors import Gone, Unavailable

__all__ = ["Watcher"]

_STREAM = 60.0
"""Seconds after which a watch is begun anew: one that stalled unseen is gone by then."""
_AGAIN = 1.0
_GATHER = 0.1
"""Seconds in which further changes are gathered: one rollout of a Deployment makes many."""


class Watcher:
    """Watches kinds of object in the namespace, from first use on.

    Args:
        cluster: The namespace.
        kinds: What to watch.
    """

    def __init__(self, cluster: Cluster, kinds: Sequence[Kind]) -> None:
        self.cluster, self.kinds = cluster, tuple(kinds)
        self.listed = 0
        self._changed, self._stop = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []

    def wait(self, seconds: float) -> None:
        """Wait until something changes, but no longer than that."""
        if not self._threads:
            for kind in self.kinds:
                thread = threading.Thread(target=self._follow, args=(kind,), daemon=True)
                self._threads.append(thread)
                thread.start()
        if self._changed.wait(seconds):
            self._stop.wait(_GATHER)
        self._changed.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The threads are daemons: they sit in reads that end with the process, or with their stream.
        self._stop.set()

    def _follow(self, kind: Kind) -> None:
        version = ""
        while not self._stop.is_set():
            try:
                if not version:
                    version = self.cluster.listing(kind)[1]
                    self.listed += 1
                for event, at in self.cluster.stream(kind, version, _STREAM):
                    version = at or version
                    if event != "BOOKMARK":
                        self._changed.set()
                    if self._stop.is_set():
                        return
            except Gone:
                version = ""  # too old to go on from: list again, and let what was missed be looked at
                self._changed.set()
            except Unavailable:
                self._changed.set()
                self._stop.wait(_AGAIN)
