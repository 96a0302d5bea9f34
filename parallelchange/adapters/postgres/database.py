"""The shared database as the rollout of one change sees it: `ports.Database`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallelchange.adapters.postgres.backfill import run_backfill
from parallelchange.adapters.postgres.catalog import read_catalog
from parallelchange.adapters.postgres.connection import Connection, connect
from parallelchange.adapters.postgres.laws import measure_law
from parallelchange.adapters.postgres.statements import ask_all
from parallelchange.change import Version
from parallelchange.corpus import read_corpus
from parallelchange.gates.laws import LawFact
from parallelchange.gates.prepare import StatementFact
from parallelchange.model import Catalog, Phase, State
from parallelchange.plan import Plan, incarnation_of
from parallelchange.ports import Applied, Database, Progress

if TYPE_CHECKING:
    from parallelchange.adapters.postgres.revisions import Revisions

__all__ = ["PostgresDatabase"]

# A role without pg_read_all_stats sees NULL for the kind of other roles' sessions: those count as sessions.
_SESSIONS = """
SELECT format('pid %%s from %%s, %%s since %%s', pid, coalesce(client_addr::text, 'local'), coalesce(state, '?'),
  to_char(backend_start, 'HH24:MI:SS')) FROM pg_stat_activity
WHERE application_name = %s AND datname = current_database() AND pid <> pg_backend_pid()
  AND coalesce(backend_type, 'client backend') = 'client backend'
UNION ALL
SELECT format('prepared transaction %%s', gid) FROM pg_prepared_xacts WHERE database = current_database()
"""


class PostgresDatabase:
    """The shared database.

    Args:
        url: libpq URL.
        plan: The plan of the change.
        ini: The repository's `alembic.ini`.
        connection: A session to use, such as one that is inside a transaction; else one is opened.
        patience: Seconds to go on trying for locks.
    """

    def __init__(
        self, url: str, plan: Plan, ini: Path, *, connection: Connection | None = None, patience: float = 120.0
    ) -> None:
        self.url, self.plan, self.ini, self.patience = url, plan, ini, patience
        self.connection = connection or connect(url, statement_timeout="0")
        self._revisions: Revisions | None = None

    def close(self) -> None:
        """End the session."""
        self.connection.close()

    @property
    def revisions(self) -> Revisions:
        """The emitted revisions; reading them is slow, so only when they are asked for."""
        if self._revisions is None:
            from parallelchange.adapters.postgres.revisions import Revisions

            self._revisions = Revisions(self.url, self.plan, self.ini, patience=self.patience)
        return self._revisions

    def catalog(self) -> Catalog:
        """The change's tables and the schema's fingerprint, as they stand."""
        return read_catalog(self.connection, self.plan.tables)

    def revision_problems(self, state: State) -> tuple[str, ...]:
        """What is wrong with the revision files, or with what Alembic has recorded."""
        return self.revisions.problems(self.revisions.applied(), state)

    def apply(
        self,
        phase: Phase,
        *,
        checks: Callable[[Database], None] | None = None,
        last_check: Callable[[Database], None] | None = None,
    ) -> Applied:
        """Run a phase's revision in one transaction."""
        return self.revisions.upgrade(phase, checks=self._inside(checks), last_check=self._inside(last_check))

    def _inside(self, check: Callable[[Database], None] | None) -> Callable[[Connection], None] | None:
        if check is None:
            return None

        def run(connection: Connection) -> None:
            inside = PostgresDatabase(self.url, self.plan, self.ini, connection=connection)
            inside._revisions = self._revisions
            check(inside)

        return run

    def revert(self, *, checks: Callable[[Database], None] | None = None) -> Applied:
        """Undo expand, and migrate where it was applied, in one transaction."""
        return self.revisions.undo(Phase.EXPAND, checks=self._inside(checks))

    def relax(self) -> None:
        """Undo migrate, where it was applied."""
        if self.plan.revision(Phase.MIGRATE) in self.revisions.applied():
            self.revisions.undo(Phase.MIGRATE)

    def backfill(self, progress: Progress) -> None:
        """Fill the new shape; goes on where an earlier run stopped."""
        change, incarnation = self.plan.change, incarnation_of(self.catalog())
        for work in self.plan.backfills:
            connection: Any = connect(self.url)
            with connection:
                run_backfill(
                    connection,
                    change.name,
                    work,
                    self.plan.base.tables[work.table],
                    rows_per_second=change.rows_per_second,
                    incarnation=incarnation,
                    progress=progress,
                )

    def laws(self, state: State) -> Sequence[LawFact]:
        """Hold the laws against every row; before expand, foretold."""
        return [measure_law(self.connection, law, state) for law in self.plan.laws]

    def statements(self, version: Version, *, on_copy: bool = False) -> Sequence[StatementFact] | None:
        """Prepare and plan a version's recorded statements; nothing is executed."""
        if version.statements is None:
            return None
        corpus = read_corpus(version.statements, version.name)
        return ask_all(self.url, corpus, role=version.role, on_copy=on_copy)

    def sessions(self, application_name: str) -> tuple[str, ...]:
        """Open sessions and prepared transactions under that name."""
        # Inside a transaction the server shows the sessions as they were at the first look.
        self.connection.execute("SELECT pg_stat_clear_snapshot()")
        return tuple(row[0] for row in self.connection.execute(_SESSIONS, (application_name,)))

    def now(self) -> float:
        """The database's clock."""
        row = self.connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        assert row is not None
        return float(row[0])
