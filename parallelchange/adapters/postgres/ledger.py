"""The ledger: the toolkit's own tables, in schema `parallelchange` of the shared database."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from parallelchange.adapters.postgres.connection import APPLICATION, Connection, connect
from parallelchange.adapters.postgres.evidence import (
    append_evidence,
    keep_schema,
    read_evidence,
    reset_evidence,
    schema_changes,
)
from parallelchange.errors import Busy, Unavailable
from parallelchange.evidence import EvidenceFile
from parallelchange.model import Evidence, Place, to_json
from parallelchange.ports import Record

__all__ = ["LEDGER_HEAD", "PostgresLedger", "ensure_ledger", "migrations_path"]

LEDGER_HEAD = "0003"
"""Newest revision of the ledger's tables; a test holds it against `migrations/`."""

_PATIENCE = 15.0
"""Seconds to wait for the lock of a process that was just killed: its session ends a moment later."""


def migrations_path() -> Path:
    """The ledger's Alembic environment: in the installed package, or in a checkout."""
    package = Path(__file__).resolve().parents[2]
    for place in (package / "_data" / "migrations", package.parent / "migrations"):
        if (place / "env.py").is_file():
            return place
    raise Unavailable("the ledger's migrations are not installed", hint="reinstall parallelchange")


def _version(connection: Connection) -> str | None:
    there = connection.execute("SELECT to_regclass('parallelchange.alembic_version')").fetchone()
    if there is None or there[0] is None:
        return None
    row = connection.execute("SELECT version_num FROM parallelchange.alembic_version").fetchone()
    return str(row[0]) if row else None


def ensure_ledger(connection: Connection, url: str) -> None:
    """Create or upgrade the ledger's tables.

    Raises:
        Unavailable: They cannot be made, or are those of a newer toolkit.
    """
    found = _version(connection)
    if found == LEDGER_HEAD:
        return
    if found is not None and found > LEDGER_HEAD:
        raise Unavailable(f"the ledger is of a newer parallelchange (revision {found})", hint="upgrade parallelchange")
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    config = Config()
    config.set_main_option("script_location", str(migrations_path()).replace("%", "%%"))
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(url, application_name=APPLICATION), poolclass=NullPool
    )
    try:
        with engine.connect() as session:
            # Two first users at once: the second waits, and then finds it done.
            session.exec_driver_sql("SELECT pg_advisory_lock(hashtext('parallelchange ledger'))")
            session.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS parallelchange")
            session.commit()
            config.attributes["connection"] = session
            command.upgrade(config, "head")
            session.commit()
    except (psycopg.Error, SQLAlchemyError, CommandError) as error:
        cause = getattr(error, "orig", None) or error
        raise Unavailable(
            f"the ledger cannot be made in schema parallelchange: {str(cause).splitlines()[0]}",
            hint="the role needs CREATE on the database, once",
        ) from None
    finally:
        engine.dispose()


class PostgresLedger:
    """What the ledger holds of one change.

    Args:
        url: The shared database.
        change: The change's name.
    """

    def __init__(self, url: str, change: str) -> None:
        self.url, self.change = url, change
        self.connection = connect(url)
        self._fence: int | None = None

    def close(self) -> None:
        """End the session."""
        self.connection.close()

    def open(self) -> None:
        """Make sure that the tables and the change's row are there."""
        ensure_ledger(self.connection, self.url)
        self.connection.execute(
            "INSERT INTO parallelchange.change (name) VALUES (%s) ON CONFLICT DO NOTHING", (self.change,)
        )

    @contextmanager
    def fenced(self) -> Iterator[None]:
        """Hold the change's advisory lock and take the next fence number.

        Raises:
            Busy: Another process holds it.
        """
        key = (f"parallelchange {self.change}",)
        give_up = time.monotonic() + _PATIENCE
        while True:
            row = self.connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", key).fetchone()
            if row and row[0]:
                break
            if time.monotonic() > give_up:
                raise Busy(
                    f"another process is at work on {self.change}: {self._holder()}",
                    hint="wait for it, or end it; what it began can be gone on with",
                )
            time.sleep(0.25)
        try:
            fence = self.connection.execute(
                "UPDATE parallelchange.change SET fence = fence + 1 WHERE name = %s RETURNING fence", (self.change,)
            ).fetchone()
            self._fence = int(fence[0]) if fence else None
            yield
        finally:
            self._fence = None
            if not self.connection.closed:
                self.connection.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", key)

    def _holder(self) -> str:
        row = self.connection.execute(
            "SELECT format('pid %%s, %%s, since %%s', a.pid, a.application_name, a.backend_start)"
            " FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
            " AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended(%s, 0) LIMIT 1",
            (f"parallelchange {self.change}",),
        ).fetchone()
        return str(row[0]) if row else "it has just ended"

    def read(self) -> Record | None:
        """What is recorded; None where there is no ledger or no such change yet."""
        if _version(self.connection) is None:
            return None
        row = self.connection.execute(
            "SELECT fence, weight, extract(epoch FROM weight_since)::float8, pending,"
            " extract(epoch FROM contracted_at)::float8, aborted, old_seen, aborts, calls"
            " FROM parallelchange.change WHERE name = %s",
            (self.change,),
        ).fetchone()
        if row is None:
            return None
        passes = self.connection.execute(
            "SELECT pass, cursor, rows, total, finished_at IS NOT NULL, incarnation"
            " FROM parallelchange.backfill WHERE change = %s",
            (self.change,),
        )
        backfills = {
            name: {"cursor": c, "rows": n, "total": t, "finished": f, "incarnation": i}
            for name, c, n, t, f, i in passes
        }
        fence, weight, since, pending, contracted, aborted, seen, aborts, calls = row
        return Record(self.change, fence, weight, since, pending, contracted, aborted, backfills, seen, aborts, calls)

    def intend(self, act: str, **detail: Any) -> None:
        """Record what is about to be done."""
        with self.connection.transaction():
            self._update("pending = %s", Jsonb({"act": act, **to_json(detail)}))
            if act == "abort":  # counted before traffic moves: whoever runs meanwhile sees it
                self._update("aborts = aborts + 1, aborted = %s", str(detail.get("reason", "")))
            self._journal(act, "intended", detail)

    def settle(self, act: str, outcome: str, **detail: Any) -> None:
        """Record what became of it.

        `detail` may hold `weight` (thousandths, set now), `contracted`, `reverted` and `aborted`.
        """
        with self.connection.transaction():
            self._update("pending = %s", None)
            if "weight" in detail:
                self._update("weight = %s, weight_since = clock_timestamp()", detail["weight"])
            if detail.get("contracted"):
                self._update("contracted_at = coalesce(contracted_at, clock_timestamp())")
            if "aborted" in detail:
                self._update("aborted = %s", detail["aborted"])
            if detail.get("reverted"):
                # The next expand starts with empty columns: what was filled is gone.
                self.connection.execute("DELETE FROM parallelchange.backfill WHERE change = %s", (self.change,))
            self._journal(act, outcome, detail)

    def saw_old(self) -> None:
        """Record that the old version's sessions have been seen under the name it declares."""
        self.connection.execute("UPDATE parallelchange.change SET old_seen = true WHERE name = %s", (self.change,))

    def keep_calls(self, sample: Mapping[str, Any]) -> None:
        """Record what the server has counted of the old version's statements."""
        self._update("calls = %s", Jsonb(dict(sample)))

    def _update(self, what: str, *values: Any) -> None:
        """Change the row, unless a later process has taken over."""
        fence = "" if self._fence is None else " AND fence = %s"
        mine = (self.change,) if self._fence is None else (self.change, self._fence)
        done = self.connection.execute(
            f"UPDATE parallelchange.change SET {what}, updated_at = clock_timestamp() WHERE name = %s{fence}",
            (*values, *mine),
        )
        if done.rowcount != 1:
            raise Busy(f"another process has taken over {self.change}", hint="see `parallelchange status`")

    def _journal(self, act: str, outcome: str, detail: Mapping[str, Any]) -> None:
        self.connection.execute(
            "INSERT INTO parallelchange.journal (change, act, outcome, detail) VALUES (%s, %s, %s, %s)",
            (self.change, act, outcome, Jsonb(to_json(detail))),
        )

    def journal(self) -> list[dict[str, Any]]:
        """All that was intended and done, oldest first."""
        rows = self.connection.execute(
            "SELECT extract(epoch FROM at)::float8, act, outcome, detail FROM parallelchange.journal"
            " WHERE change = %s ORDER BY id",
            (self.change,),
        )
        return [dict(zip(("at", "act", "outcome", "detail"), row, strict=True)) for row in rows]

    def add_evidence(self, evidence: Sequence[Evidence]) -> None:
        """Keep verdicts.

        Raises:
            Tampered: What was kept before is not what was written.
        """
        with self._writing():
            append_evidence(self.connection, self.change, evidence)
            live = next((item.key.fingerprint for item in evidence if item.key.place is Place.LIVE), None)
            keep_schema(self.connection, live)

    def import_evidence(self, file: EvidenceFile, key: str = "") -> list[Evidence]:
        """Keep the verdicts of a file, but for those that are not newer than what is known.

        Args:
            file: The file, which was found to be of this change.
            key: Id of the key whose signature was checked; empty when none was.

        Returns:
            What was kept.
        """
        source = f"imported, signed by {key}" if key else "imported"
        with self._writing():
            now = self.now()
            # A clock a little ahead of ours must not let it count for longer, or outdo what is measured from now on.
            items = [replace(i, source=source, measured_at=min(i.measured_at, now)) for i in file.items]
            kept = append_evidence(self.connection, self.change, items)
            self._journal("evidence-import", "done", {"sha256": file.sha256, "source": source, "kept": len(kept)})
        return kept

    def reset_evidence(self, reason: str) -> int:
        """Forget all evidence, and what was approved on it; gives the number of rows that were forgotten."""
        with self._writing():
            self.connection.execute(
                "UPDATE parallelchange.change SET pending = NULL WHERE name = %s AND pending->>'act' = 'approve'",
                (self.change,),
            )
            rows = reset_evidence(self.connection, self.change)
            self._journal("evidence-reset", "done", {"reason": reason, "rows": rows})
        return rows

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction of ours, if nobody has taken over."""
        with self.connection.transaction():
            # Under a stricter default a writer that waited for another would fail instead of following it.
            self.connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            if self._fence is not None:
                self._update("fence = fence")
            yield

    def now(self) -> float:
        """The database's clock, seconds since the epoch."""
        row = self.connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        assert row is not None
        return float(row[0])

    def evidence(self) -> Sequence[Evidence]:
        """The newest verdict per gate, version, state and place, newest first.

        Raises:
            Tampered: What is kept is not what was written.
        """
        return read_evidence(self.connection, self.change) if self._has_evidence() else ()

    def schema_changes(self, fingerprint: str) -> tuple[str, ...] | None:
        """What differs in the schema now from the one of a fingerprint; None where that is not known any more."""
        return schema_changes(self.connection, fingerprint) if self._has_evidence() else None

    def _has_evidence(self) -> bool:
        """Whether the ledger is of a form that holds evidence we can read: one that is older is upgraded by writers."""
        found = _version(self.connection)
        return found is not None and found >= LEDGER_HEAD
