"""All that a rollout reaches out to, in one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from parallelchange.errors import Unavailable
from parallelchange.model import Evidence
from parallelchange.plan import Plan
from parallelchange.ports import Clock, Database, Enforcement, Lead, Ledger, Metrics, Prober, Router, Workloads

__all__ = ["Alone", "Event", "NotEnforced", "World", "silent"]


@dataclass(frozen=True)
class Event:
    """Something a rollout tells those who watch it.

    Args:
        kind: `decision`, `progress`, `applied`, `evidence`, `weight`, `conflict` or `waiting`.
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


class NotEnforced:
    """Where nothing but good manners holds others to the gates."""

    def allow(self, weight: int, *, until: float | None = None) -> None:
        """Tell nobody."""

    def release(self) -> None:
        """Tell nobody."""


class Alone:
    """Leading where nobody else could."""

    def check(self) -> None:
        """It is ours."""


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
        enforcement: What holds others to what the gates have approved.
        lead: Makes this process the one that runs the rollout.
        pause: Waits that many seconds, or until there is something to look at; None for the clock's sleep.
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
    enforcement: Enforcement = field(default_factory=NotEnforced)
    lead: Callable[[], AbstractContextManager[Lead]] = field(default=lambda: nullcontext(Alone()))
    pause: Callable[[float], None] | None = None

    def wait(self, seconds: float) -> None:
        """Wait for the next look."""
        (self.pause or self.clock.sleep)(seconds)
