"""Building the world a verb works in, from settings and a change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from parallelchange.adapters.clock import SystemClock
from parallelchange.adapters.planning import load_plan
from parallelchange.adapters.postgres.database import PostgresDatabase
from parallelchange.adapters.postgres.ledger import PostgresLedger
from parallelchange.adapters.prober import RealProber
from parallelchange.cli.settings import Settings, find_change, load_settings
from parallelchange.cli.surroundings import surroundings
from parallelchange.errors import Unavailable
from parallelchange.model import Evidence
from parallelchange.rollout.world import Event, World, silent

__all__ = ["open_world", "rehearsal_of", "settings_for", "weight_now"]


def settings_for(change: str, database_url: str | None, *, on: str | None = None) -> tuple[Path, Settings]:
    """The change file and the settings that hold for it."""
    path = find_change(change)
    return path, load_settings(path.parent, database_url=database_url, rehearsal_url=on)


@contextmanager
def open_world(
    change: str,
    database_url: str | None,
    *,
    tell: Callable[[Event], None] = silent,
    record: bool = True,
    stand_by: bool = False,
    on: str | None = None,
) -> Iterator[World]:
    """Open all that a rollout of this change reaches out to.

    Args:
        change: Path or name of the change.
        database_url: As given by a flag.
        tell: Told what happens.
        record: Make the ledger where it is not there yet; reading verbs do not.
        stand_by: Wait for as long as another process runs the rollout.
        on: A database on the server that a rehearsal makes its copy on.
    """
    path, settings = settings_for(change, database_url, on=on)
    url = settings.url()
    plan = load_plan(path, url)
    database = PostgresDatabase(url, plan, settings.alembic)
    ledger = PostgresLedger(url, plan.change.name)
    try:
        with surroundings(plan.change, settings, tell, stand_by=stand_by) as around:

            def rehearse() -> list[Evidence]:
                builds = {v.name: v.build or around.workloads.build(v.name) for v in plan.change.versions}
                return rehearsal_of(plan.change.path, settings, builds, around.tell)

            if record:
                ledger.open()
            yield World(
                plan,
                database,
                ledger,
                around.router,
                around.workloads,
                around.metrics,
                RealProber(url, path.parent),
                SystemClock(),
                rehearse,
                around.tell,
                around.enforcement,
                around.lead,
                around.pause,
            )
    finally:
        ledger.close()
        database.close()


def weight_now(world: World) -> int | None:
    """The canary's share in thousandths as it stands; None when it cannot be told."""
    try:
        split = world.router.get()
    except Unavailable:
        return None
    return None if split.untold else split.weight


def rehearsal_of(
    path: Path, settings: Settings, builds: dict[str, str | None], tell: Callable[[Event], None]
) -> list[Evidence]:
    """Rehearse a change and give its evidence."""
    from parallelchange.local.rehearse import rehearse

    plan = load_plan(path, settings.url())
    rehearsal = rehearse(
        plan,
        settings.url(),
        settings.alembic,
        builds,
        lambda what: tell(Event("rehearsal", what)),
        on=settings.rehearsal_url,
    )
    for item in rehearsal.evidence:
        tell(
            Event(
                "evidence", f"{item.result.gate}: {item.result.verdict}", {"result": item.result, "state": item.state}
            )
        )
    return rehearsal.evidence
