"""NOT NULL in four steps, none of which reads the table under a strong lock."""

from __future__ import annotations

from parallelchange.model import Lock, Statement, TableName
from parallelchange.sql import ident, object_name, qualified

__all__ = ["check_not_null", "drop_check", "not_null_check", "prove_not_null", "set_not_null"]


def not_null_check(table: TableName, column: str, change: str) -> str:
    """Name of the CHECK that proves a column NOT NULL before SET NOT NULL."""
    return object_name("parallelchange", change, table.name, column, "not_null")


def check_not_null(table: TableName, column: str, change: str) -> tuple[Statement, ...]:
    """Let no new NULL in; rows that are there are not looked at, so the lock is short."""
    name = ident(not_null_check(table, column, change))
    return (
        Statement(
            f"ALTER TABLE {qualified(table.schema, table.name)}"
            f" ADD CONSTRAINT {name} CHECK ({ident(column)} IS NOT NULL) NOT VALID",
            Lock.ACCESS_EXCLUSIVE,
            table,
            f"new rows must have {column}",
        ),
    )


def drop_check(table: TableName, column: str, change: str) -> tuple[Statement, ...]:
    """Let NULL in again."""
    name = ident(not_null_check(table, column, change))
    sql = f"ALTER TABLE {qualified(table.schema, table.name)} DROP CONSTRAINT IF EXISTS {name}"
    return (Statement(sql, Lock.ACCESS_EXCLUSIVE, table, "NULL may be written again"),)


def prove_not_null(table: TableName, column: str, change: str) -> tuple[Statement, ...]:
    """Look at every row while reads and writes go on.

    PostgreSQL skips the scan of SET NOT NULL where a valid CHECK says the same (manual, ALTER TABLE).
    """
    name = ident(not_null_check(table, column, change))
    return (
        Statement(
            f"ALTER TABLE {qualified(table.schema, table.name)} VALIDATE CONSTRAINT {name}",
            Lock.SHARE_UPDATE_EXCLUSIVE,
            table,
            f"every row has {column}; reads and writes go on",
        ),
    )


def set_not_null(table: TableName, column: str, change: str) -> tuple[Statement, ...]:
    """SET NOT NULL on a proven column, and drop the proof."""
    at = qualified(table.schema, table.name)
    return (
        Statement(
            f"ALTER TABLE {at} ALTER COLUMN {ident(column)} SET NOT NULL",
            Lock.ACCESS_EXCLUSIVE,
            table,
            f"{column} is NOT NULL; no scan, the check proves it",
        ),
        Statement(
            f"ALTER TABLE {at} DROP CONSTRAINT {ident(not_null_check(table, column, change))}",
            Lock.ACCESS_EXCLUSIVE,
            table,
            "the check has done its work",
        ),
    )
