"""From the names in the cluster to one PromQL query, as values; nothing here speaks to a server.

Counters grow per series, and what a version served is how much they grew in the window. `increase()` is not
used for that where it can be helped, because it is wrong just where a gate must not be:

- It counts from a series' first sample. Most failures come as a new series (`status="500"` is not there before
  the first one), so the first of them, and often all of them, would be missed.
- It stretches what it saw to the length of the window, and counts so made up would prove `min_requests`.

So a series counts from its value where the window begins. One that was not there then counts from zero, if
its process was being read already; if it was not, its past is unknown: then of its successes only those count
that were seen to come, and all of its failures. Where a process started anew in the window, of its successes
only those since then count, and of its failures what `increase()` makes of them, or those since then if they
are more. Whatever the history of the scraping, the figures are no better than the truth.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from parallelchange.adapters.prometheus.target import Target

__all__ = ["Figure", "Part", "Queries", "compose", "literally", "matcher"]


class Figure(StrEnum):
    """Values of the label `figure`: what a number in the answer is. Those of a part have its place in `part`."""

    SUCCEEDED = "succeeded"  # answers that succeeded; at most so many
    FAILED = "failed"  # answers that did not, or of which it cannot be told; at least so many
    BUCKET = "bucket"  # answers up to the latency `le`
    NEWEST = "newest"  # when the newest sample was taken, seconds since the epoch
    SINCE = "since"  # when the newest sample at or before the window's beginning was taken


@dataclass(frozen=True)
class Part:
    """One Deployment or Service, by the labels of its series.

    Args:
        name: As messages have it.
        selectors: Matchers, joined by commas; a series that matches any of them belongs to it.
    """

    name: str
    selectors: tuple[str, ...]


@dataclass(frozen=True)
class Queries:
    """How one mesh or ingress controller counts.

    Args:
        counter: Counter of answered requests.
        buckets: Buckets of the latency histogram.
        unit: Milliseconds in one unit of the buckets' bounds.
        succeeded: Label and regular expression; an answer that does not match all of them is a failure.
        parts: The parts of a target.
    """

    counter: str
    buckets: str
    unit: float
    succeeded: tuple[tuple[str, str], ...]
    parts: Callable[[Target], tuple[Part, ...]]


def matcher(label: str, operator: str, value: str) -> str:
    """A matcher; the value is quoted and stays what it is."""
    # PromQL's strings are Go's, and whatever JSON escapes Go reads the same way.
    return f"{label}{operator}{json.dumps(value, ensure_ascii=False)}"


def literally(value: str) -> str:
    """A regular expression that matches this value alone."""
    return re.escape(value)


def compose(queries: Queries, parts: Sequence[Part], window: float) -> str:
    """The query that tells everything at once: one answer is of one moment, two could be of two.

    Args:
        queries: How it is counted.
        parts: What is asked about.
        window: Seconds looked back.
    """
    span = f"{round(window * 1000)}ms"
    return "\nor ".join(
        _named(_named(query, "part", str(place)), "figure", figure)
        for place, part in enumerate(parts)
        for figure, query in _figures(queries, part, span).items()
    )


def _figures(queries: Queries, part: Part, span: str) -> dict[Figure, str]:
    good, bad = _split(queries.succeeded)
    answered = [f"{queries.counter}{{{selector}}}" for selector in part.selectors]
    timed = [f"{queries.buckets}{{{selector}}}" for selector in part.selectors]
    succeeded = [f"{queries.counter}{{{selector},{good}}}" for selector in part.selectors]
    failed = [f"{queries.counter}{{{selector},{each}}}" for selector in part.selectors for each in bad]
    return {
        Figure.SUCCEEDED: f"sum({_any(_at_most, succeeded, span)})",
        Figure.FAILED: f"sum({_any(_at_least, failed, span)})",
        Figure.BUCKET: f"sum by (le) ({_any(_at_most, timed, span)})",
        Figure.NEWEST: f"max({_any(_newest, answered, span)})",
        Figure.SINCE: f"max({_any(_since, answered, span)})",
    }


def _split(succeeded: Sequence[tuple[str, str]]) -> tuple[str, list[str]]:
    """The matchers of successes, and those of all others."""
    good = [matcher(label, "=~", pattern) for label, pattern in succeeded]
    return ",".join(good), [matcher(label, "!~", pattern) for label, pattern in succeeded]


def _any(query: Callable[[str, str], str], series: Sequence[str], span: str) -> str:
    # `or` takes a series that several selectors match once.
    return " or ".join(query(each, span) for each in series)


def _named(query: str, label: str, value: str) -> str:
    return f'label_replace({query}, "{label}", "{value}", "", "")'


def _through(series: str, span: str) -> str:
    """Growth of the series that were there when the window began, and whose process went on."""
    last, restarted = f"last_over_time({series}[{span}])", f"resets({series}[{span}]) > 0"
    return f"((({last} - ({series} offset {span})) >= 0) unless ({restarted}))"


def _at_least(series: str, span: str) -> str:
    """Growth of which nothing is missed: a series that is new counts in full, wherever it comes from."""
    last = f"last_over_time({series}[{span}])"
    new = f"({last} unless ({series} offset {span}))"
    return f"{_through(series, span)} or {new} or (increase({series}[{span}]) > {last}) or {last}"


def _at_most(series: str, span: str) -> str:
    """Growth that is sure to lie in the window."""
    last, there = f"last_over_time({series}[{span}])", f"({series} offset {span})"
    read_before = f"(({last} unless {there}) and on (job, instance) {_read(span)})"
    seen_to_come = f"(({last} - min_over_time({series}[{span}])) unless {there})"
    return f"{_through(series, span)} or {read_before} or {seen_to_come} or {last}"


def _newest(series: str, _: str) -> str:
    return f"timestamp({series})"


def _since(series: str, span: str) -> str:
    """When the last sample before the window was taken, of the series or of another of its process."""
    read = f"(timestamp(up offset {span}) and {_read(span)})"
    return f"timestamp({series} offset {span}) or ({read} and on (job, instance) last_over_time({series}[{span}]))"


def _read(span: str) -> str:
    """The processes that were being read when the window began."""
    return f"(up offset {span} == 1)"
