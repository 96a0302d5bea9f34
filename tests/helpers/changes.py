"""Changes to test with: one case per kind of operation, with the tables it starts from and what it should do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
from hypothesis import strategies as st

from parallelchange.adapters.postgres.catalog import read_catalog
from parallelchange.changefile import Change, Traffic, Version
from parallelchange.model import Catalog, Column, Statement, Table, TableName
from parallelchange.operations import ChangeType, Operation, RenameColumn, SetNotNull, SplitColumn
from parallelchange.operations.columns import NewColumn
from parallelchange.plan import Plan, make_plan

OLD, NEW, OTHER = "old-app", "new-app", "psql"
"""`application_name` of the old version's sessions, of the new one's, and of sessions nobody declared."""

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """One operation, the table it starts from, and an oracle for what both versions must read.

    Args:
        operation: The operation.
        ddl: Makes the table.
        base: The table as the catalog must tell it.
        key: Name of its key column, an integer.
        old: Columns the old version writes.
        new: Columns the new version writes.
        up: What the new columns must hold after the old version wrote.
        down: What the old columns must hold after the new version wrote.
        old_values: What the old version writes.
        new_values: What the new version writes.
        spare: A column that belongs to neither shape.
        disagree: An UPDATE of both shapes that disagrees: column to value.
        agree: One that agrees.
        old_default: What both shapes hold after the old version inserted nothing but the key.
        new_default: The same of the new version.
    """

    operation: Operation
    ddl: str
    base: Table
    key: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    up: Callable[[Row], Row]
    down: Callable[[Row], Row]
    old_values: st.SearchStrategy[Row]
    new_values: st.SearchStrategy[Row]
    spare: str
    disagree: dict[str, Any] = field(default_factory=dict)
    agree: dict[str, Any] = field(default_factory=dict)
    old_default: tuple[Row, Row] = ((None,), (None,))
    new_default: tuple[Row, Row] = ((None,), (None,))

    @property
    def in_place(self) -> bool:
        """Whether both versions use the same columns."""
        return self.old == self.new


def _words(alphabet: str = "aA %'\\é:") -> st.SearchStrategy[str]:
    return st.text(alphabet, max_size=8)


def _split(row: Row) -> Row:
    (name,) = row
    if name is None:
        return None, None
    first, space, last = name.partition(" ")
    return first, last if space else None


def _joined(row: Row) -> Row:
    first, last = row
    if first is None:
        return (None,)
    return (first if last is None else f"{first} {last}",)


def _same(row: Row) -> Row:
    return row


def _table(name: TableName, *columns: Column, key: str) -> Table:
    return Table(name, columns, (key,))


SPLIT = Case(
    operation=SplitColumn(
        table="customers",
        column="name",
        into={"first_name": "text", "last_name": "text"},
        up={
            "first_name": "split_part(name, ' ', 1)",
            "last_name": "CASE WHEN strpos(name, ' ') > 0 THEN substr(name, strpos(name, ' ') + 1) END",
        },
        down="first_name || coalesce(' ' || last_name, '')",
    ),
    ddl="CREATE TABLE customers (id bigint PRIMARY KEY, name text, note text)",
    base=_table(
        TableName("public", "customers"),
        Column("id", "bigint", nullable=False),
        Column("name", "text"),
        Column("note", "text"),
        key="id",
    ),
    key="id",
    old=("name",),
    new=("first_name", "last_name"),
    up=_split,
    down=_joined,
    old_values=st.tuples(st.none() | _words()),
    new_values=st.tuples(st.none() | _words(), st.none() | _words()),
    spare="note",
    disagree={"name": "Ada Lovelace", "first_name": "Grace", "last_name": "Hopper"},
    agree={"name": "Ada Lovelace", "first_name": "Ada", "last_name": "Lovelace"},
    old_default=((None,), (None, None)),
    new_default=((None,), (None, None)),
)

RENAME = Case(
    operation=RenameColumn(table="User Table", column="order", to='na"me'),
    ddl="""CREATE TABLE "User Table" (id bigint PRIMARY KEY,
        "order" character varying(40) NOT NULL DEFAULT 'none', "Note" text)""",
    base=_table(
        TableName("public", "User Table"),
        Column("id", "bigint", nullable=False),
        Column("order", "character varying(40)", nullable=False, default="'none'::character varying"),
        Column("Note", "text"),
        key="id",
    ),
    key="id",
    old=("order",),
    new=('na"me',),
    up=_same,
    down=_same,
    old_values=st.tuples(_words()),
    new_values=st.tuples(_words()),
    spare="Note",
    disagree={"order": "a", 'na"me': "b"},
    agree={"order": "a", 'na"me': "a"},
    old_default=(("none",), ("none",)),
    new_default=(("none",), ("none",)),
)


def _cents(row: Row) -> Row:
    return (Decimal(row[0]) / 100,)


def _whole(row: Row) -> Row:
    return (int(row[0] * 100),)


CENTS = Case(
    operation=ChangeType(
        table="orders",
        column="price_cents",
        to="price",
        type="numeric(12, 2)",
        up="price_cents / 100.0",
        down="(price * 100)::integer",
        default="1.50",
    ),
    ddl="CREATE TABLE orders (id bigint PRIMARY KEY, price_cents integer NOT NULL DEFAULT 0, note text)",
    base=_table(
        TableName("public", "orders"),
        Column("id", "bigint", nullable=False),
        Column("price_cents", "integer", nullable=False, default="0"),
        Column("note", "text"),
        key="id",
    ),
    key="id",
    old=("price_cents",),
    new=("price",),
    up=_cents,
    down=_whole,
    old_values=st.tuples(st.integers(-(10**9), 10**9)),
    new_values=st.tuples(st.decimals("-9999999", "9999999", places=2)),
    spare="note",
    disagree={"price_cents": 100, "price": Decimal("2.00")},
    agree={"price_cents": 123456, "price": Decimal("1234.56")},
    old_default=((0,), (Decimal("0.00"),)),
    new_default=((150,), (Decimal("1.50"),)),
)


def _filled(row: Row) -> Row:
    return ("100%" if row[0] is None else row[0],)


NOT_NULL = Case(
    operation=SetNotNull(table="people", column="phone", up="'100%'"),
    ddl="CREATE TABLE people (id bigint PRIMARY KEY, phone text, note text)",
    base=_table(
        TableName("public", "people"),
        Column("id", "bigint", nullable=False),
        Column("phone", "text"),
        Column("note", "text"),
        key="id",
    ),
    key="id",
    old=("phone",),
    new=("phone",),
    up=_filled,
    down=_filled,
    old_values=st.tuples(st.none() | _words()),
    new_values=st.tuples(_words()),
    spare="note",
    old_default=(("100%",), ("100%",)),
    new_default=(("100%",), ("100%",)),
)

REQUIRED = Case(
    operation=SplitColumn(
        table="customers",
        column="name",
        into={"first_name": NewColumn("text", not_null=True, default="'?'"), "last_name": "text"},
        up={"first_name": "split_part(name, ' ', 1)", "last_name": "nullif(substr(name, strpos(name, ' ')), name)"},
        down="first_name || coalesce(last_name, '')",
    ),
    ddl="CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL DEFAULT 'N N', note text)",
    base=_table(
        TableName("public", "customers"),
        Column("id", "bigint", nullable=False),
        Column("name", "text", nullable=False, default="'N N'::text"),
        Column("note", "text"),
        key="id",
    ),
    key="id",
    old=("name",),
    new=("first_name", "last_name"),
    up=lambda row: (row[0].split(" ")[0], row[0][row[0].index(" ") :] if " " in row[0][1:] else None),
    down=lambda row: (row[0] + (row[1] or ""),),
    # Names with a space in front are left out: this `up` gives nothing of them back.
    old_values=st.tuples(st.from_regex(r"[a-z%]{1,3}( [a-z' ]{0,3})?", fullmatch=True)),
    new_values=st.tuples(_words(), st.none() | _words()),
    spare="note",
    disagree={"name": "a b", "first_name": "a", "last_name": " c"},
    agree={"name": "a b", "first_name": "a", "last_name": " b"},
    old_default=(("N N",), ("N", " N")),
    new_default=(("?",), ("?", None)),
)

CASES: dict[str, Case] = {
    "split_column": SPLIT,
    "rename_column": RENAME,
    "change_type": CENTS,
    "set_not_null": NOT_NULL,
    "split_column_required": REQUIRED,
}
"""Every kind of operation is in here; a test demands it."""


def make_change(
    *operations: Operation,
    name: str = "a-change",
    old: str | None = OLD,
    new: str | None = NEW,
    path: Path = Path("change.yaml"),
    **rest: Any,
) -> Change:
    """A change as `load_change` would give it."""
    versions = {
        "old": Version(name="v1", application_name=old, statements=None, probe=None, build=None),
        "new": Version(name="v2", application_name=new, statements=None, probe=None, build=None),
    }
    traffic = Traffic(
        router="local",
        service="shop",
        stages=(50, 250, 500, 1000),
        soak=60.0,
        drain=30.0,
        drain_timeout=300.0,
    )
    values = {"traffic": traffic, "metrics": None, "rows_per_second": None, "max_age": 3600.0, **versions, **rest}
    return Change(name=name, path=path, database=operations, **values)


def catalog(*tables: Table, types: Iterable[str] = ()) -> Catalog:
    """A catalog of these tables, without a server."""
    return Catalog({table.name: table for table in tables}, "fingerprint", 180000, {type_: type_ for type_ in types})


def pure_plan(case: Case, **change: Any) -> Plan:
    """The plan of a case, without a server."""
    types = {"numeric(12, 2)": "numeric(12,2)", "text": "text"}
    return make_plan(make_change(case.operation, **change), Catalog({case.base.name: case.base}, "base", 180000, types))


def live_plan(connection: psycopg.Connection[Any], *operations: Operation, **change: Any) -> Plan:
    """A plan on the tables as they stand in a database."""
    made = make_change(*operations, **change)
    types = [type_ for operation in operations for type_ in operation.types]
    return make_plan(made, read_catalog(connection, {operation.table_name for operation in operations}, types))


def run_phase(connection: psycopg.Connection[Any], statements: Iterable[Statement]) -> None:
    """Run a phase as its revision would: all of it in one transaction."""
    with connection.transaction():
        for statement in statements:
            connection.execute(statement.sql)


def session(url: str, application_name: str) -> psycopg.Connection[Any]:
    """An autocommit session of a version."""
    return psycopg.connect(url, autocommit=True, application_name=application_name)
