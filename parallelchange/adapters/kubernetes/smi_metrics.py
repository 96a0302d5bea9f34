"""Success rate and latency from the cluster's own metrics API, `metrics.smi-spec.io`.

What the API cannot say: its time is when it was asked, not when its samples were taken; and its reference
implementation answers 0 for a figure it has nothing for. So no requests and a latency of 0 prove nothing, and
no failures prove as much as the implementation behind the API does.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from parallelchange.adapters.prometheus.target import Target
from parallelchange.errors import Unavailable
from parallelchange.ports import Sample

__all__ = ["Figures", "SmiMetrics", "join", "parse"]

AHEAD = 30.0
"""Seconds that the cluster's clock may be ahead of ours."""

_KIND = "TrafficMetrics"
_UNITS = {"s": 1000.0, "seconds": 1000.0, "ms": 1.0}
"""Milliseconds in each unit of latency: the specification has seconds, its implementation ms."""

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+", re.ASCII)
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Figures:
    """What one Deployment served.

    Args:
        succeeded: Answers that succeeded.
        failed: Answers that did not.
        p99_ms: Latency in milliseconds; None when it cannot be told.
        at: When it was told, seconds since the epoch.
        window: Seconds that it is of.
    """

    succeeded: float
    failed: float
    p99_ms: float | None
    at: float
    window: float


class SmiMetrics:
    """Reads the metrics API.

    Args:
        read: Gets the TrafficMetrics of a Deployment by its name; may raise `Unavailable`.
        targets: Tells what runs a version now; the same.
        now: Tells the time in seconds since the epoch.

    Attributes:
        reasons: Version to why its last reading told nothing; empty where it told something.
    """

    def __init__(
        self,
        read: Callable[[str], Mapping[str, Any]],
        targets: Callable[[str], Target],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._read, self._targets, self._now = read, targets, now
        self.reasons: dict[str, str] = {}

    def read(self, version: str, window: float) -> Sample | None:
        """What the version served, over the API's own window, which cannot be chosen and is told.

        None when nothing can be told: the API does not answer or has nothing of one of the Deployments, or its
        window is longer than `window` and so has what is not asked about.
        """
        try:
            target = self._targets(version)
            figures = [parse(self._read(name), target.namespace, name) for name in target.deployments]
            sample = join(version, window, figures, self._now())
        except Unavailable as error:
            self.reasons[version] = error.message
            return None
        self.reasons[version] = ""
        return sample


def parse(document: Mapping[str, Any], namespace: str, name: str) -> Figures:
    """Read a TrafficMetrics.

    Args:
        document: As the API answers.
        namespace: Namespace of the Deployment that was asked about.
        name: Its name.

    Raises:
        Unavailable: It is none, is of something else, or lacks a figure.
    """
    deployment = f"Deployment {namespace}/{name}"
    try:
        resource, edge = document.get("resource"), document.get("edge") or {}
        if document["kind"] != _KIND or resource is None:
            # With nothing to tell, it answers with a list that is empty.
            raise Unavailable(f"the metrics API has nothing of {deployment}")
        if (resource["namespace"], resource["name"]) != (namespace, name):
            raise Unavailable(f"the metrics API tells of {resource} instead of {deployment}")
        if edge.get("direction") == "to" or any((edge.get("resource") or {}).values()):
            raise Unavailable(f"the metrics API tells of a part of the traffic of {deployment}")
        metrics = {metric["name"]: metric for metric in document["metrics"]}
        return Figures(
            succeeded=_quantity(metrics["success_count"]["value"]),
            failed=_quantity(metrics["failure_count"]["value"]),
            p99_ms=_latency(metrics.get("p99_response_latency")),
            at=_time(document["timestamp"]),
            window=_duration(document["window"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Unavailable(f"what the metrics API tells of {deployment} cannot be used: {error!r}") from error


def join(version: str, window: float, parts: Sequence[Figures], now: float) -> Sample:
    """All Deployments of a version as one.

    Args:
        version: App version.
        window: Seconds asked about.
        parts: What each served.
        now: The time, seconds since the epoch.

    Raises:
        Unavailable: There is none, or what they served is not of the window.
    """
    if not parts:
        raise Unavailable("nothing that takes traffic is known to run it")
    age, told = now - min(part.at for part in parts), max(part.window for part in parts)
    if now - max(part.at for part in parts) < -AHEAD:
        raise Unavailable("the metrics API tells of a time to come: one of the clocks is wrong")
    if told > window + 1:
        raise Unavailable(f"the metrics API tells of {told:g} s, and {window:g} s were asked about")
    succeeded = math.floor(sum(part.succeeded for part in parts))
    failed = math.ceil(sum(part.failed for part in parts))
    latencies = [part.p99_ms for part in parts if part.succeeded or part.failed]
    # Of all answers together no more than 1 % are slower than the slowest Deployment's 99th percentile.
    known = [each for each in latencies if each is not None]
    p99 = max(known) if known and len(known) == len(latencies) else None
    return Sample(version, succeeded + failed, failed, p99, window=told, age=max(age, 0.0))


def _quantity(value: Any) -> float:
    """A count as Kubernetes writes it, such as 100 or `73492m`."""
    from kubernetes.utils.quantity import parse_quantity

    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no quantity")  # noqa: TRY004 - one kind of error for a bad document
    amount = float(parse_quantity(str(value)))
    if not 0 <= amount < math.inf:
        # What is not a number becomes a large negative one on its way through the implementation.
        raise ValueError(f"{value!r} is no count")
    return amount


def _latency(metric: Mapping[str, Any] | None) -> float | None:
    if metric is None or metric.get("unit") not in _UNITS:
        return None
    try:
        amount = _quantity(metric["value"])
    except ValueError:
        return None
    return amount * _UNITS[metric["unit"]] or None


def _duration(text: Any) -> float:
    """Seconds of a duration as Go writes it, such as `1m30s`."""
    if not isinstance(text, str) or not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration")
    pieces = re.findall(r"([\d.]+)([^\d.]+)", text)
    return sum(float(amount) * _SECONDS[unit] for amount, unit in pieces)


def _time(text: Any) -> float:
    moment = datetime.fromisoformat(str(text))
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.timestamp()
