"""All that a rollout reaches out to, in one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from parallelchange.errors import Unavailable
from parallelchange.model import Evidence
from parallelchange.plan import Plan
from parallelchange.ports import Clock, Database, Ledger, Metrics, Prober, Router, Workloads

__all__ = ["Event", "World", "silent"]


@dataclass(frozen=True)
class Event:
    """Something a rollout tells those who watch it.

    Args:
        kind: `decision`, `progress`, `applied` or `evidence`.
        what: In words.
        data: Figures and values.
    """

    kind: str
    what: str
    data: dict[str, Any] = field(default_factory=dict)


def silent(event: Event) -> None:
    """Tell nobody."""


def _no_rehearsal() -> Sequence[Evidence]:
    raise Unavailable(
        "there is no scratch PostgreSQL to rehearse on", hint="install it: pip install 'parallelchange[local]'"
    )


@dataclass(frozen=True)
class World:
    """The plan and the ports it is carried out through.

    Args:
        plan: The plan.
        database: The shared database.
        ledger: The toolkit's tables in it.
        router: What moves traffic.
        workloads: The running copies.
        metrics: Success rate and latency.
        prober: Asks versions for their own proof.
        clock: Time.
        rehearse: Runs the whole change on a scratch copy and gives the evidence.
        tell: Told what happens.
    """

    plan: Plan
    database: Database
    ledger: Ledger
    router: Router
    workloads: Workloads
    metrics: Metrics
    prober: Prober
    clock: Clock
    rehearse: Callable[[], Sequence[Evidence]] = _no_rehearsal
    tell: Callable[[Event], None] = silent
