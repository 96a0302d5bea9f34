"""The one row trigger per table and change that keeps both shapes in step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from parallelchange.model import Lock, Statement, TableName
from parallelchange.operations.base import Sync
from parallelchange.sql import PINNED, ident, literal, object_name, qualified, search_path

__all__ = ["STANDS_ASIDE", "Trigger"]

STANDS_ASIDE = "parallelchange.backfill"
"""Session setting that holds the name of the change being backfilled; its trigger stands aside for it."""


class Trigger:
    """The trigger of one change on one table.

    PostgreSQL lets no WHEN of an INSERT trigger see OLD, so the one function has two triggers.
    BEFORE triggers fire in the order of their names: ours come last, to see what is really stored.

    Args:
        change: The change's name.
        table: The table.
        syncs: What each operation needs, in the order of the change file.
    """

    def __init__(self, change: str, table: TableName, syncs: Sequence[Sync]) -> None:
        self.change, self.table, self.syncs = change, table, syncs
        self.function = object_name("parallelchange", change, table.name)
        self.names = (
            object_name("zz_parallelchange", change, "insert"),
            object_name("zz_parallelchange", change, "update"),
        )

    @property
    def body(self) -> str:
        """The function's body, as `pg_proc.prosrc` keeps it."""
        inserts = "".join(sync.on_insert for sync in self.syncs)
        updates = "".join(sync.on_update for sync in self.syncs)
        return (
            f"\n#variable_conflict use_column\nBEGIN\nIF TG_OP = 'INSERT' THEN\n{inserts}"
            f"ELSE\n{updates}END IF;\nRETURN NEW;\nEND\n"
        )

    @property
    def body_digest(self) -> str:
        """md5 of the body, as `md5(prosrc)` gives it."""
        return hashlib.md5(self.body.encode(), usedforsecurity=False).hexdigest()

    def create(self) -> tuple[Statement, ...]:
        """The function and its two triggers."""
        at = qualified(self.table.schema, self.table.name)
        function = qualified(self.table.schema, self.function)
        whens = [sync.insert_when for sync in self.syncs]
        asked = [when for when in whens if when is not None]
        insert_when = "" if len(asked) < len(whens) else f" WHEN ({' OR '.join(asked)})"
        aside = f"current_setting('{STANDS_ASIDE}', true) IS DISTINCT FROM {literal(self.change)}"
        moved = " OR ".join(sync.update_when for sync in self.syncs)
        insert, update = map(ident, self.names)
        pins = "".join(f" SET {name} = {literal(value)}" for name, value in PINNED.items())
        return (
            Statement(
                f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql"
                f" SET search_path = {search_path(self.table.schema)}{pins}"
                f" AS $parallelchange${self.body}$parallelchange$",
                Lock.NONE,
                None,
                "computes one shape from the other",
            ),
            Statement(
                f"CREATE TRIGGER {insert} BEFORE INSERT ON {at} FOR EACH ROW{insert_when}"
                f" EXECUTE FUNCTION {function}()",
                Lock.SHARE_ROW_EXCLUSIVE,
                self.table,
                "new rows have both shapes",
            ),
            Statement(
                f"CREATE TRIGGER {update} BEFORE UPDATE ON {at} FOR EACH ROW"
                f" WHEN (({moved}) AND {aside}) EXECUTE FUNCTION {function}()",
                Lock.SHARE_ROW_EXCLUSIVE,
                self.table,
                "a write to one shape moves the other; other writes pass by",
            ),
        )

    def drop(self) -> tuple[Statement, ...]:
        """Undo `create`."""
        at = qualified(self.table.schema, self.table.name)
        insert, update = map(ident, self.names)
        return (
            Statement(f"DROP TRIGGER {update} ON {at}", Lock.ACCESS_EXCLUSIVE, self.table, "the shapes part"),
            Statement(f"DROP TRIGGER {insert} ON {at}", Lock.ACCESS_EXCLUSIVE, self.table, "the shapes part"),
            Statement(
                f"DROP FUNCTION {qualified(self.table.schema, self.function)}()",
                Lock.NONE,
                None,
                "nothing calls it any more",
            ),
        )
