"""What an operation answers. All of it is values: no operation talks to a database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from parallelchange.model import Backfill, Catalog, Law, Statement, Table, TableName

__all__ = ["Expression", "Footprint", "Operation", "Problem", "Sync", "Writers"]


@dataclass(frozen=True)
class Problem:
    """Why an operation cannot be planned on this database.

    Args:
        key: The key of the operation in the change file that is to blame.
        message: What is wrong.
        remedy: What to do.
    """

    key: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Expression:
    """A SQL expression of the change file, so that the server can be asked whether it makes sense.

    Args:
        key: Its key in the operation.
        sql: The expression.
        over: The columns it may use, with their types.
    """

    key: str
    sql: str
    over: Mapping[str, str]


@dataclass(frozen=True)
class Sync:
    """What a table's trigger does for one operation while both shapes live.

    Args:
        on_insert: PL/pgSQL statements for INSERT.
        on_update: PL/pgSQL statements for UPDATE.
        insert_when: SQL condition over NEW under which an INSERT needs them; None for always.
        update_when: SQL condition over OLD and NEW under which an UPDATE needs them.
    """

    on_insert: str
    on_update: str
    insert_when: str | None
    update_when: str


@dataclass(frozen=True)
class Footprint:
    """What an operation leaves in the catalog, by which its state is told.

    Args:
        added: New columns with their types: there after expand.
        dropped: Old columns: gone after contract.
        not_null: Columns that are NOT NULL only after contract.
    """

    added: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    not_null: tuple[str, ...] = ()


class Operation(Protocol):
    """One kind of change to one table.

    Every method is given the table as it was before the change, so that what was planned
    can be told again at any later time.
    """

    kind: ClassVar[str]

    @property
    def table_name(self) -> TableName:
        """The table it changes."""

    @property
    def types(self) -> tuple[str, ...]:
        """Types it names, as they are written."""

    def expressions(self, base: Table) -> tuple[Expression, ...]:
        """The SQL expressions it was given."""

    def problems(self, base: Catalog) -> tuple[Problem, ...]:
        """Why it cannot be planned here; empty when it can."""

    def expand(self, base: Table) -> tuple[Statement, ...]:
        """Make the new shape beside the old one."""

    def sync(self, base: Table, writers: Writers) -> Sync:
        """Keep both shapes in step."""

    def backfills(self, base: Table) -> tuple[Backfill, ...]:
        """Fill the new shape of the rows that are there already."""

    def migrate(self, base: Table, change: str) -> tuple[Statement, ...]:
        """Let no new row in that contract could not take. Only once nothing old writes any more."""

    def relax(self, base: Table, change: str) -> tuple[Statement, ...]:
        """Undo `migrate`: an old version that comes back may write what it always wrote."""

    def prove(self, base: Table, change: str) -> tuple[Statement, ...]:
        """Let the server prove, under a weak lock, what contract relies on."""

    def contract(self, base: Table, change: str) -> tuple[Statement, ...]:
        """Leave only the new shape."""

    def revert(self, base: Table, change: str) -> tuple[Statement, ...]:
        """Undo expand."""

    def laws(self, base: Table) -> tuple[Law, ...]:
        """What must hold for every row while both shapes live."""

    def footprint(self, base: Table) -> Footprint:
        """What it leaves in the catalog."""


@dataclass(frozen=True)
class Writers:
    """How the trigger tells who is writing.

    Args:
        change: The change's name, for messages.
        old: `application_name` of the old version's sessions; None when it is not declared.
        new: The same of the new version's.
    """

    change: str
    old: str | None
    new: str | None
