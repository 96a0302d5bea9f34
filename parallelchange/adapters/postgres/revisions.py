"""Running the emitted Alembic revisions on a session of ours, so that gates can be checked in their transaction."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import DDL, Connection, create_engine, event, exc
from sqlalchemy.pool import NullPool
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from parallelchange.adapters.postgres.connection import session_parameters
from parallelchange.emit.alembic import scripts
from parallelchange.errors import Busy, ParallelChangeError, Refused, SchemaState
from parallelchange.model import Phase, State, Statement
from parallelchange.plan import Plan
from parallelchange.ports import Applied

__all__ = ["Revisions"]

_PATIENCE = 120.0
"""Seconds for which a phase is tried again when its locks are not to be had."""


class _LockTimeout(Exception):
    """A lock was not to be had within lock_timeout."""


class Revisions:
    """The three revisions of a change, in a repository and in a database.

    Args:
        url: The database.
        plan: The plan they were emitted from.
        ini: The repository's `alembic.ini`.
        patience: Seconds to go on trying for locks.
    """

    def __init__(self, url: str, plan: Plan, ini: Path, *, patience: float = _PATIENCE) -> None:
        self.url, self.plan, self.ini, self.patience = url, plan, ini, patience
        self.directory: ScriptDirectory = scripts(ini)

    def problems(self, applied: frozenset[str], state: State) -> tuple[str, ...]:
        """Revisions that are missing, edited, or recorded otherwise than the schema shows.

        Args:
            applied: Revisions that Alembic has recorded, with all they imply.
            state: What the schema shows.
        """
        found = []
        undo = {Phase.EXPAND: self.plan.revert, Phase.MIGRATE: self.plan.relax}
        for phase in Phase:
            revision = self.plan.revision(phase)
            if self.script(phase) is None:
                found.append(f"the {phase} revision {revision} is not in {self.ini.parent}")
            elif self.planned(self.plan.statements(phase)) != self.written(phase):
                found.append(f"the {phase} revision {revision} holds other SQL than the plan")
            elif phase in undo and self.planned(undo[phase]) != self.written(phase, "downgrade"):
                found.append(f"the downgrade of the {phase} revision {revision} holds other SQL than the plan")
        expanded = self.plan.revision(Phase.EXPAND) in applied
        if expanded and state is State.BASE:
            found.append("Alembic has recorded expand, and the schema shows nothing of it")
        if not expanded and state is State.EXPANDED:
            found.append("the schema is expanded, and Alembic has not recorded it")
        return tuple(found)

    def script(self, phase: Phase) -> Any | None:
        """The revision's script, or None."""
        try:
            return self.directory.get_revision(self.plan.revision(phase))
        except CommandError:
            return None

    def planned(self, statements: Sequence[Statement]) -> str:
        """The SQL the plan wants, as Alembic's offline mode writes it."""

        def run(operations: Operations) -> None:
            for statement in statements:
                operations.execute(DDL(statement.sql.replace("%", "%%")))  # type: ignore[no-untyped-call]

        return self._offline(run)

    def written(self, phase: Phase, way: str = "upgrade") -> str:
        """The SQL the revision in the repository would run."""
        script = self.script(phase)
        assert script is not None
        return self._offline(lambda _: getattr(script.module, way)())

    def _offline(self, run: Callable[[Operations], None]) -> str:
        buffer = io.StringIO()
        context = MigrationContext.configure(
            dialect_name="postgresql", opts={"as_sql": True, "output_buffer": buffer, "literal_binds": True}
        )
        with Operations.context(context) as operations:
            run(operations)
        return buffer.getvalue()

    @contextmanager
    def _session(self) -> Iterator[Connection]:
        engine = create_engine(
            "postgresql+psycopg://",
            poolclass=NullPool,
            creator=lambda: psycopg.connect(self.url, **session_parameters(self.url)),
        )
        try:
            with engine.connect() as session:
                yield session
        finally:
            engine.dispose()

    def applied(self) -> frozenset[str]:
        """Revisions Alembic has recorded, with all that come before them."""
        with self._session() as session:
            heads = MigrationContext.configure(session).get_current_heads()
        known = [head for head in heads if self._known(head)]
        return frozenset(script.revision for script in self.directory.iterate_revisions(tuple(known), "base"))

    def _known(self, revision: str) -> bool:
        try:
            return self.directory.get_revision(revision) is not None
        except CommandError:
            return False

    def upgrade(
        self,
        phase: Phase,
        *,
        checks: Callable[[psycopg.Connection[Any]], None] | None = None,
        last_check: Callable[[psycopg.Connection[Any]], None] | None = None,
    ) -> Applied:
        """Run a phase's revision, and whatever it depends on that is not applied, in one transaction.

        Args:
            phase: The phase.
            checks: Called first; raises to refuse.
            last_check: Called before the commit, under the revision's locks; raises to refuse.

        Raises:
            Busy: Its locks were not to be had.
            SchemaState: PostgreSQL refused a statement; nothing was changed.
        """
        script = self.script(phase)
        missing = sorted(set(self._before(script)) - self.applied()) if script else [self.plan.revision(phase)]
        if missing:
            raise SchemaState(
                f"{phase} builds on revisions that are not applied: {', '.join(missing)}",
                hint="apply them first, with `alembic upgrade`: this runs its own revision and nothing else",
            )

        def run(session: Connection) -> None:
            driver = session.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            if checks:
                checks(driver)
            self._migrate(session, self.plan.revision(phase))
            if last_check:
                last_check(driver)

        return self._transact(run)

    def _before(self, script: Any) -> list[str]:
        needs = [script.revision]
        found = [s.revision for s in self.directory.iterate_revisions(tuple(needs), "base")]
        for earlier in Phase:  # Alembic leaves dependencies of other branches out of this walk
            if self.plan.revision(earlier) == script.revision:
                break
            found.append(self.plan.revision(earlier))
        return [revision for revision in found if revision != script.revision]

    def to_base(self) -> Applied:
        """Bring an empty database to where the change starts from."""
        script = self.script(Phase.EXPAND)
        if script is None:
            raise SchemaState(
                f"{self.plan.change.name} has no revisions yet",
                hint=f"run: parallelchange emit alembic {self.plan.change.name}",
            )
        return self._transact(lambda session: self._migrate(session, str(script.down_revision or "base")))

    def _migrate(self, session: Connection, target: str) -> None:
        context = MigrationContext.configure(
            session,
            opts={"fn": lambda rev, _: self.directory._upgrade_revs(target, rev)},  # noqa: SLF001
        )
        with Operations.context(context):
            context.run_migrations()

    def undo(self, phase: Phase, *, checks: Callable[[psycopg.Connection[Any]], None] | None = None) -> Applied:
        """Run a phase's downgrade, and that of whatever depends on it, in one transaction."""
        script = self.script(phase)
        assert script is not None
        ours = {self.plan.revision(each) for each in Phase}
        above = sorted(
            revision
            for revision in self.applied() - ours
            if ours & {s.revision for s in self.directory.iterate_revisions(revision, "base")}
        )
        if above:
            raise Refused(
                f"revisions that build on this {phase} are applied: {', '.join(above)}",
                hint="undo those changes first",
            )
        below = f"{phase}@{script.down_revision or 'base'}"

        def run(session: Connection) -> None:
            if checks:
                driver = session.connection.driver_connection
                assert isinstance(driver, psycopg.Connection)
                checks(driver)
            context = MigrationContext.configure(
                session,
                opts={"fn": lambda rev, _: self.directory._downgrade_revs(below, rev)},  # noqa: SLF001
            )
            with Operations.context(context):
                context.run_migrations()

        return self._transact(run)

    def _transact(self, run: Callable[[Connection], None]) -> Applied:
        """Do it in one transaction; when locks are not to be had, do it again after a jittered pause."""
        begun = time.monotonic()
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(_LockTimeout),
                stop=stop_after_delay(self.patience),
                wait=wait_random_exponential(multiplier=0.25, max=5.0),
            ):
                with attempt, self._session() as session:
                    held = self._once(session, run)
                    return Applied(time.monotonic() - begun, held, attempt.retry_state.attempt_number)
        except RetryError:
            raise Busy(
                f"the locks on {', '.join(map(str, self.plan.tables))} were not to be had in {self.patience:g} s;"
                " nothing was changed",
                hint="see pg_stat_activity for long transactions on them, and try again",
            ) from None
        raise AssertionError("unreachable")

    def _once(self, session: Connection, run: Callable[[Connection], None]) -> float:
        """One attempt; returns how long an ACCESS EXCLUSIVE lock was held, in seconds."""
        locked: list[float] = []

        def after(_c: object, _cursor: object, sql: str, *_rest: object) -> None:
            if sql.lstrip().startswith("LOCK TABLE") and not locked:
                locked.append(time.monotonic())

        event.listen(session, "after_cursor_execute", after)
        try:
            with session.begin():
                run(session)
        except ParallelChangeError:
            raise
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            raise _LockTimeout from error
        except exc.DBAPIError as error:
            if isinstance(error.orig, (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)):
                raise _LockTimeout from error
            reason = str(error.orig).splitlines()[0]
            raise SchemaState(
                f"PostgreSQL refused, and nothing was changed: {reason}", hint=_short(error.statement)
            ) from error.orig
        return time.monotonic() - locked[0] if locked else 0.0


def _short(sql: str | None) -> str | None:
    return f"in: {' '.join(sql.split())[:300]}" if sql else None
