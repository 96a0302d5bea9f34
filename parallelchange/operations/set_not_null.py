"""Make a column NOT NULL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parallelchange.model import Backfill, Catalog, Law, Statement, Table, TableName
from parallelchange.operations.base import Expression, Footprint, Problem, Sync, Writers
from parallelchange.operations.columns import common_problems
from parallelchange.operations.not_null import check_not_null, drop_check, prove_not_null, set_not_null
from parallelchange.sql import ident

__all__ = ["SetNotNull"]


@dataclass(frozen=True, kw_only=True)
class SetNotNull:
    """Make a column NOT NULL, in place.

    The old version may go on writing NULL until contract: the trigger puts `up` in its place.

    Args:
        table: `table` or `schema.table`.
        column: The column.
        up: SQL expression, over the row, that stands for NULL.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by the change file's reader
    kind: ClassVar[str] = "set_not_null"

    table: str
    column: str
    up: str

    @property
    def table_name(self) -> TableName:
        """The table it changes."""
        return TableName.parse(self.table)

    @property
    def types(self) -> tuple[str, ...]:
        """It names none."""
        return ()

    def expressions(self, base: Table) -> tuple[Expression, ...]:
        """`up` over the row."""
        # Generated columns are computed after the trigger has run.
        seen = {column.name: column.type for column in base.columns if not column.generated}
        return (Expression("up", self.up, seen),)

    def problems(self, base: Catalog) -> tuple[Problem, ...]:
        """The column must be there and nullable."""
        found = common_problems(base, self.table_name, self.column)
        if found:
            return found
        column = base.tables[self.table_name].column(self.column)
        assert column is not None
        if not column.nullable:
            return (Problem("column", f"{self.table}.{self.column} is NOT NULL already", "nothing is left to do"),)
        if "$parallelchange$" in self.up:
            return (Problem("up", "an expression holds the tag $parallelchange$", "leave it out"),)
        return ()

    def expand(self, base: Table) -> tuple[Statement, ...]:  # noqa: ARG002 - nothing to add: the trigger does it
        """Nothing but the trigger."""
        return ()

    def sync(self, base: Table, writers: Writers) -> Sync:  # noqa: ARG002 - the same whoever writes
        """Put `up` where NULL is written."""
        column = ident(self.column)
        fill = f"  IF NEW.{column} IS NULL THEN\n    SELECT ({self.up}) INTO NEW.{column} FROM (SELECT NEW.*) AS {ident(base.name.name)};\n  END IF;\n"  # noqa: E501
        return Sync(fill, fill, f"NEW.{column} IS NULL", f"NEW.{column} IS NULL")

    def backfills(self, base: Table) -> tuple[Backfill, ...]:
        """Rows that are NULL."""
        return (Backfill(base.name, base.primary_key, {self.column: self.up}, f"{ident(self.column)} IS NULL"),)

    def migrate(self, base: Table, change: str) -> tuple[Statement, ...]:
        """Let no new NULL in."""
        return check_not_null(base.name, self.column, change)

    def prove(self, base: Table, change: str) -> tuple[Statement, ...]:
        """Prove it while reads and writes go on."""
        return prove_not_null(base.name, self.column, change)

    def contract(self, base: Table, change: str) -> tuple[Statement, ...]:
        """SET NOT NULL, which then needs no scan."""
        return set_not_null(base.name, self.column, change)

    def relax(self, base: Table, change: str) -> tuple[Statement, ...]:
        """Drop the check."""
        return drop_check(base.name, self.column, change)

    def revert(self, base: Table, change: str) -> tuple[Statement, ...]:
        """The check goes if it is there; filled values stay, as the old version reads them already."""
        return drop_check(base.name, self.column, change)

    def laws(self, base: Table) -> tuple[Law, ...]:
        """The column is set in every row."""
        column = ident(self.column)
        return (
            Law(
                f"{base.name.name}.{self.column}",
                base.name,
                f"{column} IS NOT NULL",
                f"coalesce({column}, ({self.up})) IS NOT NULL",
                {},
                (*base.primary_key, self.column),
                f"{self.column} is set in every row",
            ),
        )

    def footprint(self, base: Table) -> Footprint:  # noqa: ARG002 - told by the operation alone
        """NOT NULL after contract."""
        return Footprint(not_null=(self.column,))
