"""Building the world a verb works in, from settings and a change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from parallelchange.adapters.clock import SystemClock
from parallelchange.adapters.local_files import METRICS, TRAFFIC_SPLIT
from parallelchange.adapters.local_metrics import LocalMetrics
from parallelchange.adapters.local_router import LocalRouter
from parallelchange.adapters.local_workloads import LocalWorkloads
from parallelchange.adapters.planning import load_plan
from parallelchange.adapters.postgres.database import PostgresDatabase
from parallelchange.adapters.postgres.ledger import PostgresLedger
from parallelchange.adapters.prober import RealProber
from parallelchange.cli.settings import Settings, find_change, load_settings
from parallelchange.model import Evidence
from parallelchange.rollout.world import Event, World, silent

__all__ = ["open_world", "rehearsal_of", "settings_for"]


def settings_for(change: str, database_url: str | None) -> tuple[Path, Settings]:
    """The change file and the settings that hold for it."""
    path = find_change(change)
    return path, load_settings(path.parent, database_url=database_url)


def services(root: str) -> tuple[str, str]:
    """Names of the stable and the canary service behind a root service."""
    return f"{root}-stable", f"{root}-canary"


@contextmanager
def open_world(
    change: str, database_url: str | None, *, tell: Callable[[Event], None] = silent, record: bool = True
) -> Iterator[World]:
    """Open all that a rollout of this change reaches out to.

    Args:
        change: Path or name of the change.
        database_url: As given by a flag.
        tell: Told what happens.
        record: Make the ledger where it is not there yet; reading verbs do not.
    """
    path, settings = settings_for(change, database_url)
    url = settings.url()
    plan = load_plan(path, url)
    stable, canary = services(plan.change.traffic.service)
    workloads = LocalWorkloads(settings.state_dir)
    database = PostgresDatabase(url, plan, settings.alembic)
    ledger = PostgresLedger(url, plan.change.name)
    clusters = {plan.change.old.name: stable, plan.change.new.name: canary}
    router = LocalRouter(
        settings.state_dir / TRAFFIC_SPLIT, service=plan.change.traffic.service, stable=stable, canary=canary
    )

    def rehearse() -> list[Evidence]:
        builds = {v.name: v.build or workloads.build(v.name) for v in plan.change.versions}
        return rehearsal_of(plan.change.path, settings, builds, tell)

    try:
        if record:
            ledger.open()
        yield World(
            plan,
            database,
            ledger,
            router,
            workloads,
            LocalMetrics(settings.state_dir / METRICS, clusters),
            RealProber(url, path.parent),
            SystemClock(),
            rehearse,
            tell,
        )
    finally:
        ledger.close()
        database.close()


def rehearsal_of(
    path: Path, settings: Settings, builds: dict[str, str | None], tell: Callable[[Event], None]
) -> list[Evidence]:
    """Rehearse a change and give its evidence."""
    from parallelchange.local.rehearse import rehearse

    plan = load_plan(path, settings.url())
    rehearsal = rehearse(plan, settings.url(), settings.alembic, builds, lambda what: tell(Event("rehearsal", what)))
    for item in rehearsal.evidence:
        tell(
            Event(
                "evidence", f"{item.result.gate}: {item.result.verdict}", {"result": item.result, "state": item.state}
            )
        )
    return rehearsal.evidence
