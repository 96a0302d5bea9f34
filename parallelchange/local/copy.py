"""A scratch copy of a database: its whole schema and some of its rows, with foreign keys intact."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

import psycopg

from parallelchange.adapters.postgres.connection import Connection, connect, describe_url
from parallelchange.change import RehearsalSpec
from parallelchange.errors import Unavailable
from parallelchange.local.roles import check_roles, copy_roles, copy_settings, is_superuser, own_database
from parallelchange.local.sample import Sample, copy_sequences, one_search_path
from parallelchange.local.structure import LOCK_WAIT, Structure, check_extensions, refresh_views

__all__ = ["copy_database"]

_AS_IT_STANDS = RehearsalSpec()


def _silent(_: str) -> None:
    pass


def copy_database(
    source: str,
    target: str,
    tools: Path,
    *,
    spec: RehearsalSpec = _AS_IT_STANDS,
    roles: Collection[str] = (),
    tell: Callable[[str], None] = _silent,
) -> int:
    """Copy a database as it is at one moment.

    Args:
        source: URL of the shared database; it is only read, with no lock stronger than ACCESS SHARE.
        target: URL of an empty scratch database.
        tools: Folder of pg_dump, pg_restore and psql.
        spec: How many rows, and what is masked.
        roles: Database roles that the copy must not give more rights than they have.
        tell: Told what the user should know.

    Returns:
        How many rows were copied.

    Raises:
        InvalidFile: A masking rule cannot be followed.
        Unavailable: The source cannot be read, or the copy cannot be made.
    """
    with (
        tempfile.TemporaryDirectory(prefix="parallelchange-copy-") as folder,
        # Its transaction stands idle while the structure is dumped and restored.
        connect(source, lock_timeout=LOCK_WAIT, idle_in_transaction_session_timeout="0") as there,
        connect(target) as here,
    ):
        structure = Structure(source, target, tools, Path(folder))
        try:
            return _copy(there, here, structure, spec, roles, tell)
        except psycopg.Error as error:
            # Not its details: they quote rows.
            raise Unavailable(
                f"{describe_url(source)} cannot be copied for the rehearsal:"
                f" {error.diag.message_primary or type(error).__name__}"
            ) from None


def _copy(
    there: Connection,
    here: Connection,
    structure: Structure,
    spec: RehearsalSpec,
    roles: Collection[str],
    tell: Callable[[str], None],
) -> int:
    with there.transaction():
        there.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        exported = there.execute("SELECT pg_export_snapshot()").fetchone()
        assert exported is not None
        one_search_path(there, here)
        check_extensions(there, here)
        sample = Sample(there, here, spec.rows, spec.mask)
        sample.prepare()
        structure.dump(exported[0])
        copy_roles(there, here, tell)
        own_database(there, here)
        check_roles(there, here, roles)
        structure.restore("schema", "pre-data")
        # Without keys and triggers the rows go in as they are, whichever comes first.
        rows = sample.copy()
        copy_sequences(there, here)
        structure.restore("schema", "post-data")
        refresh_views(there, here)
        if structure.event_triggers and is_superuser(here):
            # After all that they watch for, and before the settings that sessions begin with.
            structure.restore("event-triggers", "post-data")
        elif structure.event_triggers:
            tell("warning: the copy has no event triggers, for only a superuser can make them")
        copy_settings(there, here)
    here.execute("ANALYZE")
    return rows
