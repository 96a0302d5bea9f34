"""What a version served, as a Prometheus knows it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from parallelchange.adapters.prometheus.client import Client, Point
from parallelchange.adapters.prometheus.envoy import ENVOY
from parallelchange.adapters.prometheus.istio import ISTIO
from parallelchange.adapters.prometheus.linkerd import LINKERD
from parallelchange.adapters.prometheus.nginx import NGINX
from parallelchange.adapters.prometheus.promql import Figure, Part, Queries, compose
from parallelchange.adapters.prometheus.target import Target
from parallelchange.errors import Unavailable, UsageError
from parallelchange.ports import Sample

__all__ = ["FAMILIES", "PrometheusMetrics", "Served", "quantile", "sort_out", "summarize"]

FAMILIES: Mapping[str, Queries] = {"linkerd": LINKERD, "istio": ISTIO, "nginx": NGINX, "envoy": ENVOY}
"""How each mesh or ingress controller counts, by the name the change file has for it."""

HOLE = 60.0
"""Seconds without a sample after which it is unknown what came in between."""

_QUANTILE = 0.99
_FUZZ = 1e-6
"""How far a whole number may be off after it was added up in floating point, as a share."""


@dataclass(frozen=True)
class Served:
    """What one part served, as it was read.

    Args:
        now: The server's time.
        succeeded: Answers that succeeded.
        failed: Answers that did not.
        newest: When the newest sample was taken.
        since: When the window really begins.
        buckets: Upper bound, in the histogram's unit, to the answers up to it.
    """

    now: float
    succeeded: float
    failed: float
    newest: float
    since: float
    buckets: Mapping[float, float] = field(default_factory=dict)


class PrometheusMetrics:
    """Reads both versions' figures from a Prometheus.

    Args:
        url: Its address; a token comes from the environment (see `client.TOKEN`).
        queries: Whose metrics it holds, as the change file names them.
        targets: Tells what runs a version now; may raise `Unavailable`.
        timeout: Seconds an answer may take.

    Attributes:
        reasons: Version to why its last reading told nothing; empty where it told something.

    Raises:
        UsageError: The address, the token or the name of the queries cannot be used.
    """

    def __init__(self, url: str, queries: str, targets: Callable[[str], Target], *, timeout: float = 10.0) -> None:
        if queries not in FAMILIES:
            raise UsageError(f"there are no queries for {queries!r}", hint=f"known are {', '.join(FAMILIES)}")
        self._client = Client(url, timeout=timeout)
        self._queries, self._targets = FAMILIES[queries], targets
        self.reasons: dict[str, str] = {}

    def read(self, version: str, window: float) -> Sample | None:
        """What the version served in the last `window` seconds.

        None when nothing can be told: the server does not answer, or only in part; a Deployment or Service of
        the version has no series, was not being read when the window began, or is no longer. Zero requests are
        told as zero, which is not None. Latency above the last finite bucket is told as None, for it has no
        upper bound.
        """
        try:
            sample = self._tell(version, window)
        except Unavailable as error:
            self.reasons[version] = error.message
            return None
        self.reasons[version] = ""
        return sample

    def _tell(self, version: str, window: float) -> Sample:
        parts = self._queries.parts(self._targets(version))
        if not parts:
            raise Unavailable("nothing that takes traffic is known to run it")
        points = self._client.query(compose(self._queries, parts, window))
        return summarize(version, window, sort_out(points, parts), self._queries.unit)


def sort_out(points: Iterable[Point], parts: Sequence[Part]) -> list[Served]:
    """The figures of each part, in their order.

    Raises:
        Unavailable: A part has no figures, or one of them is no number.
    """
    found: list[dict[str, Point]] = [{} for _ in parts]
    buckets: list[dict[float, float]] = [defaultdict(float) for _ in parts]
    try:
        for point in points:
            place, figure = int(point.labels["part"]), point.labels["figure"]
            if not (math.isfinite(point.value) and point.value >= 0):
                raise Unavailable(f"{figure} of {parts[place].name} is {point.value}")
            if figure == Figure.BUCKET:
                # A bound may be written in two ways, as 10 and as 10.0, when Prometheus or the proxies are newer.
                buckets[place][float(point.labels["le"])] += point.value
            else:
                found[place][figure] = point
    except (KeyError, ValueError, IndexError) as error:
        raise Unavailable(f"Prometheus answers in a way that it should not: {error!r}") from error
    return [_served(*each) for each in zip(parts, found, buckets, strict=True)]


def _served(part: Part, found: Mapping[str, Point], buckets: Mapping[float, float]) -> Served:
    newest, since = found.get(Figure.NEWEST), found.get(Figure.SINCE)
    if newest is None:
        raise Unavailable(f"{part.name} has no series, or none any more")
    if since is None:
        raise Unavailable(f"{part.name} was not being read yet when the window began")
    succeeded, failed = found.get(Figure.SUCCEEDED), found.get(Figure.FAILED)
    if succeeded is None and failed is None:
        raise Unavailable(f"{part.name} has not been read in the window")
    return Served(
        now=newest.time,
        # There is no series for a kind of answer that was never given.
        succeeded=succeeded.value if succeeded else 0.0,
        failed=failed.value if failed else 0.0,
        newest=newest.value,
        since=since.value,
        buckets=buckets,
    )


def summarize(version: str, window: float, parts: Sequence[Served], unit: float) -> Sample:
    """All parts as one.

    Args:
        version: App version.
        window: Seconds asked about.
        parts: What each part served; at least one.
        unit: Milliseconds in one unit of the buckets' bounds.

    Raises:
        Unavailable: What was read is not of the window.
    """
    age = max(part.now - part.newest for part in parts)
    early = max(part.now - window - part.since for part in parts)
    if age > HOLE or early > HOLE:
        raise Unavailable(f"there are no samples for {max(age, early):.0f} s")
    covered = min(part.newest - part.since for part in parts)
    if covered < window / 2:
        raise Unavailable(f"its samples are of {covered:.0f} s, and {window:.0f} s were asked about")
    succeeded = math.floor(sum(part.succeeded for part in parts) * (1 + _FUZZ))
    failed = math.ceil(sum(part.failed for part in parts) * (1 - _FUZZ))
    latency = quantile(_joined([part.buckets for part in parts]), _QUANTILE, at_least=succeeded / 2)
    return Sample(
        version=version,
        requests=succeeded + failed,
        failures=failed,
        p99_ms=None if latency is None else latency * unit,
        window=covered,
        age=max(age, 0.0),
    )


def _joined(buckets: Iterable[Mapping[float, float]]) -> dict[float, float]:
    """The buckets of all parts as one histogram; none when their bounds differ."""
    some = [each for each in buckets if each]
    if len({tuple(sorted(each)) for each in some}) != 1:
        return {}
    return {bound: sum(each[bound] for each in some) for bound in some[0]}


def quantile(buckets: Mapping[float, float], share: float, *, at_least: float = 0.0) -> float | None:
    """The value up to which that share of the answers lies, interpolated within its bucket.

    Unlike Prometheus' `histogram_quantile`, which tells the last finite bound, it tells nothing when the answer
    lies beyond that bound: the bound is where it is better than the truth.

    Args:
        buckets: Upper bound to the answers up to it, cumulative.
        share: 0..1.
        at_least: Fewer answers than this do not speak for all.

    Returns:
        In the unit of the bounds; None when it cannot be told.
    """
    bounds = sorted(buckets)
    counts = [buckets[bound] for bound in bounds]
    if not bounds or not math.isinf(bounds[-1]) or counts[-1] <= 0 or counts[-1] < at_least:
        return None
    rank, lower, below = share * counts[-1], 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count < below * (1 - _FUZZ):
            return None  # not one histogram
        if count >= rank:
            return None if math.isinf(bound) else lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return None
