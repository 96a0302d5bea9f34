"""What the load generator keeps count of. Nothing here waits or sends."""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

__all__ = ["Book", "Figures", "Histogram", "Log", "Tally", "exact", "rounded"]

GROWTH = 1.02
"""Each bucket ends 2 % above where it begins, so its middle is at most 1 % off anything in it."""
SMALLEST = 0.01
"""Milliseconds; anything faster counts as this."""
WINDOW = 5.0
"""Seconds that `recent` figures look back."""
KEPT = 20
_REASON = 80
"""Characters by which failures are counted as the same."""
"""Failures and wrong reads that are kept in full; the rest are only counted."""


class Histogram:
    """Latencies in buckets of equal ratio: percentiles within 2 %, in memory that does not grow with time."""

    def __init__(self) -> None:
        self.buckets: Counter[int] = Counter()

    def add(self, value: float) -> None:
        """Count one latency in milliseconds."""
        self.buckets[math.floor(math.log(max(value, SMALLEST)) / math.log(GROWTH))] += 1

    def percentile(self, share: float) -> float | None:
        """The latency that `share` (0..1) of all are not above; None when nothing was counted."""
        rank = math.ceil(share * self.buckets.total())
        for bucket in sorted(self.buckets):
            rank -= self.buckets[bucket]
            if rank <= 0:
                return float(GROWTH ** (bucket + 0.5))
        return None


def exact(values: Iterable[float], share: float) -> float | None:
    """The same percentile as `Histogram` answers, from the values themselves."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


@dataclass
class Figures:
    """Requests of one version, or of one version in one stage."""

    requests: int = 0
    failures: int = 0
    latency: Histogram = field(default_factory=Histogram)

    def add(self, milliseconds: float, *, failed: bool) -> None:
        """Count one request, answered or not."""
        self.requests += 1
        self.failures += failed
        self.latency.add(milliseconds)

    def to_json(self) -> dict[str, Any]:
        """As `stats.json` has it."""
        shares = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
        percentiles = {key: rounded(self.latency.percentile(share)) for key, share in shares.items()}
        return {"requests": self.requests, "failures": self.failures, **percentiles}


class Tally:
    """All figures of one run."""

    def __init__(self) -> None:
        self.sent = self.answered = self.failed = self.late = self.wrong = 0
        self.versions: dict[str, Figures] = {}
        self.stages: dict[str, dict[str, Figures]] = {}
        self.failures: list[dict[str, Any]] = []
        self.reasons: Counter[str] = Counter()
        self.wrong_reads: list[dict[str, Any]] = []
        self._recent: deque[tuple[float, str, float, bool]] = deque()

    def add(self, at: float, version: str, stage: str, milliseconds: float, failure: dict[str, Any] | None) -> None:
        """Count one request that has come to its end.

        Args:
            at: When it ended, seconds since the epoch.
            version: As the answer's header has it; `none` when nobody we know answered.
            stage: What the rollout was in when it was due.
            milliseconds: From when it was due to when it ended.
            failure: What went wrong; None when nothing did.
        """
        failed = failure is not None
        self.versions.setdefault(version, Figures()).add(milliseconds, failed=failed)
        self.stages.setdefault(stage, {}).setdefault(version, Figures()).add(milliseconds, failed=failed)
        self._recent.append((at, version, milliseconds, failed))
        if failure is not None:
            self.failed += 1
            reason = str(failure.get("text", ""))[:_REASON]
            self.reasons[reason if reason in self.reasons or len(self.reasons) < KEPT else "other"] += 1
            if len(self.failures) < KEPT:
                self.failures.append({"t": at, "version": version, "stage": stage, **failure})

    def misread(self, entry: dict[str, Any]) -> None:
        """Count a read that did not show what was acknowledged."""
        self.wrong += 1
        if len(self.wrong_reads) < KEPT:
            self.wrong_reads.append(entry)

    def to_json(self, now: float) -> dict[str, Any]:
        """As `stats.json` has it, recent figures being those of the last 5 s before `now`."""
        while self._recent and self._recent[0][0] < now - WINDOW:
            self._recent.popleft()
        return {
            "sent": self.sent,
            "answered": self.answered,
            "failed_requests": self.failed,
            "late": self.late,
            "wrong_reads": self.wrong,
            "versions": {
                version: {**figures.to_json(), "recent": self._recently(version)}
                for version, figures in sorted(self.versions.items())
            },
            "stages": {
                stage: {version: figures.to_json() for version, figures in sorted(versions.items())}
                for stage, versions in self.stages.items()
            },
            "failures": self.failures,
            "reasons": dict(self.reasons),
            "wrong": self.wrong_reads,
        }

    def _recently(self, version: str) -> dict[str, Any]:
        own = [(taken, failed) for _, of, taken, failed in self._recent if of == version]
        latencies = [taken for taken, _ in own]
        return {
            "requests": len(own),
            "failures": sum(failed for _, failed in own),
            "p50_ms": rounded(exact(latencies, 0.5)),
            "p99_ms": rounded(exact(latencies, 0.99)),
        }


def rounded(milliseconds: float | None) -> float | None:
    """To a hundredth, for people and files."""
    return None if milliseconds is None else round(milliseconds, 2)


class Book:
    """What readers must see of each customer, and which customers may be written or compared at all."""

    def __init__(self) -> None:
        self.known: dict[int, dict[str, str]] = {}
        self.writing: set[int] = set()
        self.uncertain: set[int] = set()
        self._writes: Counter[int] = Counter()

    def claim(self, customer: int) -> bool:
        """Begin a write, unless one is in flight or the outcome of an earlier one is unknown."""
        if customer in self.writing or customer in self.uncertain:
            return False
        self.writing.add(customer)
        self._writes[customer] += 1
        return True

    def acknowledged(self, customer: int, values: Mapping[str, str]) -> None:
        """The write was acknowledged: from now on readers see these values."""
        self.writing.discard(customer)
        self.known.setdefault(customer, {}).update(values)

    def refused(self, customer: int) -> None:
        """The write was answered with a no: nothing changed."""
        self.writing.discard(customer)

    def unknown(self, customer: int) -> None:
        """Nobody can tell whether the write happened, or will yet: leave this customer alone."""
        self.writing.discard(customer)
        self.uncertain.add(customer)

    def stamp(self, customer: int) -> int | None:
        """What `differs` needs to tell that no write overlapped a read; None when one does already."""
        if customer in self.writing or customer in self.uncertain:
            return None
        return self._writes[customer]

    def differs(self, customer: int, stamp: int | None, read: Mapping[str, Any]) -> str | None:
        """Compare a read with what was acknowledged. What nobody wrote is learnt from its first read.

        Args:
            customer: The customer that was read.
            stamp: From before the read was sent.
            read: The fields that were answered.

        Returns:
            What differs, in words; None when nothing does or when a write overlapped the read.
        """
        if stamp is None or stamp != self.stamp(customer):
            return None
        known = self.known.setdefault(customer, {})
        for name, value in read.items():
            expected = known.setdefault(name, value)
            if value != expected:
                return f"{name} is {str(value)[:80]!r}, acknowledged was {expected[:80]!r}"
        return None


class Log:
    """The log of writes, one JSON object a line, in the file before its answer counts as acknowledged."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", encoding="utf-8", buffering=1)
        self.acknowledged = 0

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write one line through to the system, so that killing this process does not lose it."""
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self.acknowledged += entry["outcome"] == "acknowledged"

    def close(self) -> None:
        """No more lines."""
        self._file.close()
