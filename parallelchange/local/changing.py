"""A change on a scratch database: nothing else is there that writes, so its phases are run one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from parallelchange.adapters.postgres.database import PostgresDatabase
from parallelchange.adapters.postgres.ledger import PostgresLedger
from parallelchange.model import Phase
from parallelchange.plan import Plan
from parallelchange.ports import Applied

__all__ = ["changing", "expand"]


@contextmanager
def changing(url: str, plan: Plan, ini: Path) -> Iterator[PostgresDatabase]:
    """The database as the change sees it, with a ledger in it.

    Args:
        url: The scratch database.
        plan: The plan of the change.
        ini: The repository's `alembic.ini`.

    Raises:
        Unavailable: It does not answer.
    """
    with (
        closing(PostgresLedger(url, plan.change.name)) as ledger,
        closing(PostgresDatabase(url, plan, ini)) as database,
    ):
        ledger.open()
        yield database


def expand(database: PostgresDatabase) -> Applied:
    """Expand, and fill the new shape."""
    applied = database.apply(Phase.EXPAND)
    database.backfill(lambda _what, _done, _total: None)
    return applied
