"""Give a column a new type, under a new name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parallelchange.model import Table
from parallelchange.operations.columns import ColumnsForm, NewColumn, Shape
from parallelchange.sql import ident

__all__ = ["ChangeType"]


@dataclass(frozen=True, kw_only=True)
class ChangeType(ColumnsForm):
    """Give a column a new type, under a new name: both types live side by side.

    Args:
        table: `table` or `schema.table`.
        column: The column as the old version knows it.
        to: The column's name in the new version.
        type: Its new SQL type.
        up: SQL expression over the old column; by default a cast.
        down: SQL expression over the new column that gives the old value back; by default a cast.
        default: Default of the new column; by default none.
    """

    kind: ClassVar[str] = "change_type"

    table: str
    column: str
    to: str
    type: str
    up: str | None = None
    down: str | None = None
    default: str | None = None

    @property
    def types(self) -> tuple[str, ...]:
        """The new type."""
        return (self.type,)

    def replaced(self) -> str:
        """The old column."""
        return self.column

    def shape(self, base: Table) -> Shape:
        """One value in two types; NOT NULL goes with it."""
        old = base.column(self.column)
        assert old is not None
        up = self.up or f"{ident(self.column)}::{self.type}"
        down = self.down or f"{ident(self.to)}::{old.type}"
        new = NewColumn(self.type, not_null=not old.nullable, default=self.default)
        return Shape((old,), {self.to: new}, {self.to: up}, {self.column: down})
