"""Give a column a new name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parallelchange.model import Table
from parallelchange.operations.columns import ColumnsForm, NewColumn, Shape
from parallelchange.sql import ident

__all__ = ["RenameColumn"]


@dataclass(frozen=True, kw_only=True)
class RenameColumn(ColumnsForm):
    """Give a column a new name; type, default and NOT NULL go with it.

    Args:
        table: `table` or `schema.table`.
        column: The name the old version knows.
        to: The name the new version knows.
    """

    kind: ClassVar[str] = "rename_column"

    table: str
    column: str
    to: str

    def replaced(self) -> str:
        """The old column."""
        return self.column

    def shape(self, base: Table) -> Shape:
        """One column under two names."""
        old = base.column(self.column)
        assert old is not None
        new = NewColumn(old.type, not_null=not old.nullable, default=old.default)
        return Shape((old,), {self.to: new}, {self.to: ident(self.column)}, {self.column: ident(self.to)})
