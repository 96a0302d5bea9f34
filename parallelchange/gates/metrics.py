"""Both versions keep their success rate and latency."""

from __future__ import annotations

from dataclasses import dataclass

from parallelchange.gates.base import Act, Gate, failed, passed, unknown
from parallelchange.model import GateResult, Severity, Verdict

__all__ = ["GATE", "MetricsFact", "judge"]

GATE = Gate(
    id="metrics",
    what="Success rate and 99th percentile of each version that has traffic, in the window, are within bounds.",
    why="A change that harms only the old version goes unseen where only the canary is watched.",
    remedy="look at the version's logs; traffic goes back to the old version",
    example="The new version answers 8 % of its requests with 500.",
    guards=frozenset({Act.SET_WEIGHT, Act.RETIRE, Act.CONTRACT}),
)

MAX_AGE = 15.0
"""Seconds after which a reading says nothing of now."""


@dataclass(frozen=True)
class MetricsFact:
    """What one version with traffic served, beside its bounds.

    Args:
        version: App version.
        share: Its share of traffic in thousandths.
        requests: Requests in the window; None when nothing could be read.
        success_rate: Share that succeeded; None without requests.
        p99_ms: Latency; None without requests.
        age: Seconds since the newest reading.
        min_requests: Fewer prove nothing.
        success_ok: Whether the success rate keeps its bound; None without requests.
        latency_ok: The same for latency.
        success_bound: The bound on the success rate, as it was written.
        latency_bound: The bound on latency, as it was written.
    """

    version: str
    share: int
    requests: int | None
    success_rate: float | None
    p99_ms: float | None
    age: float
    min_requests: int
    success_ok: bool | None
    latency_ok: bool | None
    success_bound: str
    latency_bound: str


def judge(fact: MetricsFact | None, version: str) -> GateResult:
    """Within bounds on enough fresh requests. No data is unknown, never a pass.

    Args:
        fact: What was read; None when the change file says `metrics: none`.
        version: App version.
    """
    if fact is None:
        note = GATE.finding("waived", "the change file declares no metrics", severity=Severity.INFO)
        return GateResult(GATE.id, Verdict.PASS, (note,), version)
    measured = {"requests": fact.requests, "success_rate": fact.success_rate, "p99_ms": fact.p99_ms}
    if fact.requests is None or fact.age > MAX_AGE:
        why = "nothing can be read" if fact.requests is None else f"the newest reading is {fact.age:.0f} s old"
        return unknown(
            GATE,
            GATE.finding(
                "no-data", f"{version}: {why}", where=version, remedy="see whether the mesh and its metrics are there"
            ),
            version=version,
            **measured,
        )
    findings = []
    # Too few requests prove neither: one slow answer of three says nothing.
    enough = fact.requests >= fact.min_requests
    if enough and fact.success_ok is False:
        findings.append(
            GATE.finding(
                "success-rate",
                f"{version}: {fact.success_rate:.2%} of {fact.requests} requests succeed, bound {fact.success_bound}",
                where=version,
            )
        )
    if enough and fact.latency_ok is False:
        findings.append(
            GATE.finding(
                "latency",
                f"{version}: p99 is {fact.p99_ms:.0f} ms over {fact.requests} requests, bound {fact.latency_bound}",
                where=version,
            )
        )
    if findings:
        return failed(GATE, *findings, version=version, **measured)
    if enough and (fact.success_ok is None or fact.latency_ok is None):
        told = f"{version}: of {fact.requests} requests the latency or the success cannot be told"
        remedy = "see that they are timed, and that the bound lies within the histogram's buckets"
        return unknown(GATE, GATE.finding("untold", told, where=version, remedy=remedy), version=version, **measured)
    if not enough:
        return unknown(
            GATE,
            GATE.finding(
                "few",
                f"{version}: {fact.requests} requests in the window, {fact.min_requests} are needed",
                where=version,
                remedy="wait for traffic, or lengthen metrics.window",
            ),
            version=version,
            **measured,
        )
    return passed(GATE, version=version, **measured)
