"""Split one column into several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parallelchange.model import Catalog, Table
from parallelchange.operations.base import Problem
from parallelchange.operations.columns import ColumnsForm, NewColumn, Shape

__all__ = ["SplitColumn"]


@dataclass(frozen=True, kw_only=True)
class SplitColumn(ColumnsForm):
    """Split one column into several.

    Args:
        table: `table` or `schema.table`.
        column: The column to split; it goes at contract.
        into: New column to its type, or to {type, not_null, default}.
        up: New column to SQL expression over the old column.
        down: SQL expression over the new columns that gives the old value back.
    """

    kind: ClassVar[str] = "split_column"

    table: str
    column: str
    into: dict[str, str | NewColumn]
    up: dict[str, str]
    down: str

    @property
    def types(self) -> tuple[str, ...]:
        """The new columns' types."""
        return tuple(to.type if isinstance(to, NewColumn) else to for to in self.into.values())

    def replaced(self) -> str:
        """The old column."""
        return self.column

    def problems(self, base: Catalog) -> tuple[Problem, ...]:
        """`up` must tell how to compute each new column and nothing else."""
        if not self.into:
            return (Problem("into", "no column to split into", "name at least one, with its type"),)
        if set(self.up) != set(self.into):
            odd = ", ".join(sorted(set(self.up) ^ set(self.into)))
            return (Problem("up", f"up and into do not name the same columns: {odd}", "give one expression for each"),)
        return super().problems(base)

    def shape(self, base: Table) -> Shape:
        """One old column, several new ones."""
        old = base.column(self.column)
        assert old is not None
        new = {name: to if isinstance(to, NewColumn) else NewColumn(to) for name, to in self.into.items()}
        return Shape((old,), new, self.up, {self.column: self.down})
