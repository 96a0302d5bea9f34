"""Success rate and latency of the local mesh, from the series that its follower keeps."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from parallelchange.ports import Sample

__all__ = ["LocalMetrics", "Reading", "quantile"]

STALE_AFTER = 10.0
"""Seconds after which a series nobody adds to tells nothing any more; it is added to every second."""

_SERVER_ERROR = 500
_QUANTILE = 0.99


@dataclass(frozen=True)
class Reading:
    """The counters of one cluster at one time, grown since its Envoy started.

    Args:
        time: Seconds since the epoch.
        run: Which start of Envoy it is; a new one counts from zero.
        codes: Answers by status code.
        buckets: Upper bound in milliseconds to the answers that took no longer.
    """

    time: float
    run: str
    codes: Mapping[int, int]
    buckets: Mapping[float, int]

    @classmethod
    def parse(cls, line: str, cluster: str) -> Reading | None:
        """Read one line of the series; None when it does not speak of that cluster."""
        document: Any = json.loads(line)
        found = document["clusters"].get(cluster)
        if found is None:
            return None
        return cls(
            time=float(document["time"]),
            run=str(document["run"]),
            codes={int(code): int(count) for code, count in found["codes"].items()},
            buckets={float(bound): int(count) for bound, count in found["buckets"]},
        )


class LocalMetrics:
    """Reads the local mesh's series.

    Args:
        path: The series' file.
        clusters: App version to the service (Envoy's cluster) that runs it.
        now: Tells the time in seconds since the epoch.
    """

    def __init__(self, path: Path, clusters: Mapping[str, str], *, now: Callable[[], float] = time.time) -> None:
        self.path, self.clusters, self._now = path, clusters, now

    def read(self, version: str, window: float) -> Sample | None:
        """What the version served in the last `window` seconds.

        None when nothing can be told: no series, none of this version, its newest reading too old, or
        readings over less than half the window. Zero requests are told as zero, which is not None.
        """
        cluster, now = self.clusters.get(version), self._now()
        readings = self._readings(cluster) if cluster is not None else None
        if not readings:
            return None
        newest = readings[-1]
        age = now - newest.time
        base = min(range(len(readings)), key=lambda index: abs(readings[index].time - (now - window)))
        span = newest.time - readings[base].time
        if age > STALE_AFTER or span < window / 2:
            return None
        codes, buckets = _grown(readings[base:])
        return Sample(
            version=version,
            requests=sum(codes.values()),
            failures=sum(count for code, count in codes.items() if code >= _SERVER_ERROR),
            p99_ms=quantile(buckets, _QUANTILE),
            window=span,
            age=max(age, 0.0),
        )

    def _readings(self, cluster: str) -> list[Reading] | None:
        try:
            text = self.path.read_text(encoding="utf-8")
        except OSError:
            return None
        lines = text.splitlines()
        if not text.endswith("\n"):
            lines = lines[:-1]  # the writer is in the middle of it
        try:
            found = [Reading.parse(line, cluster) for line in lines]
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return [reading for reading in found if reading is not None]


def quantile(buckets: Mapping[float, int], share: float) -> float | None:
    """The latency below which that share of the answers lies, interpolated within its bucket.

    Args:
        buckets: Upper bound to the number of answers up to it, cumulative.
        share: 0..1.

    Returns:
        Milliseconds; None without answers. Beyond the last finite bound it is that bound, as Prometheus
        has it; the local mesh's last one lies above its own time limit, so nothing is beyond it.
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0
    if total <= 0:
        return None
    rank, lower, below = share * total, 0.0, 0
    for bound in bounds:
        if buckets[bound] >= rank:
            if math.isinf(bound):
                break
            return lower + (bound - lower) * (rank - below) / (buckets[bound] - below)
        lower, below = bound, buckets[bound]
    return lower


def _grown(readings: Sequence[Reading]) -> tuple[Counter[int], Counter[float]]:
    """By how much the counters grew from the first reading to the last, over restarts of Envoy."""
    codes: Counter[int] = Counter()
    buckets: Counter[float] = Counter()
    for before, after in pairwise(readings):
        fresh = before.run != after.run or any(after.codes.get(code, 0) < count for code, count in before.codes.items())
        for code, count in after.codes.items():
            codes[code] += count - (0 if fresh else before.codes.get(code, 0))
        for bound, count in after.buckets.items():
            buckets[bound] += count - (0 if fresh else before.buckets.get(bound, 0))
    return codes, buckets
