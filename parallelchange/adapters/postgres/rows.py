"""What a row of a table must look like, as the catalog tells it, and values of it that are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.model import TableName

__all__ = ["Field", "ForeignKey", "RowFacts", "one_row", "read_row_facts", "samples"]

_FIELDS = """
WITH RECURSIVE field AS (
  SELECT a.attnum, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required,
    a.atthasdef OR a.attidentity <> '' AS defaulted, a.attidentity = 'a' OR a.attgenerated <> '' AS given,
    a.atttypid AS base, a.atttypmod AS mod
  FROM pg_attribute a WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
), resolved AS (
  SELECT * FROM field
  UNION ALL
  SELECT r.attnum, r.name, r.type, r.required OR t.typnotnull, r.defaulted, r.given, t.typbasetype, t.typtypmod
  FROM resolved r JOIN pg_type t ON t.oid = r.base WHERE t.typtype = 'd'
)
SELECT r.name, r.type, t.typname::text,
  CASE WHEN t.typelem <> 0 AND t.typcategory = 'A' THEN 'a' ELSE t.typtype::text END,
  (SELECT bool_or(x.required) FROM resolved x WHERE x.attnum = r.attnum), r.defaulted, r.given, r.mod,
  coalesce((SELECT array_agg(e.enumlabel::text ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
    '{}'),
  coalesce((SELECT e.typname::text FROM pg_type e WHERE e.oid = t.typelem AND t.typcategory = 'A'), '')
FROM resolved r JOIN pg_type t ON t.oid = r.base WHERE t.typtype <> 'd' ORDER BY r.attnum
"""
_UNIQUE = """
SELECT (SELECT array_agg(a.attname::text ORDER BY array_position(i.indkey::int2[], a.attnum), a.attnum)
  FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum > 0 AND (a.attnum = ANY (i.indkey) OR EXISTS (
    SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
      AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum))),
  i.indisprimary
FROM pg_index i WHERE i.indrelid = %s::regclass AND i.indisunique AND i.indisvalid ORDER BY i.indisprimary DESC
"""
_FOREIGN = """
SELECT n.nspname, p.relname,
  (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(f.conkey) WITH ORDINALITY k(num, place)
   JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.num),
  (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(f.confkey) WITH ORDINALITY k(num, place)
   JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.num)
FROM pg_constraint f JOIN pg_class p ON p.oid = f.confrelid JOIN pg_namespace n ON n.oid = p.relnamespace
WHERE f.conrelid = %s::regclass AND f.contype = 'f'
"""
_NUMBERS = frozenset({"int2", "int4", "int8", "numeric", "float4", "float8"})
_TEXTS = frozenset({"text", "varchar", "bpchar", "citext"})
_PLAIN = {
    "bool": "true",
    "int2": "1",
    "int4": "1",
    "int8": "1",
    "numeric": "1",
    "float4": "1",
    "float8": "1",
    "date": "2024-02-29",
    "timestamp": "2024-02-29 12:00:00",
    "timestamptz": "2024-02-29 12:00:00+00",
    "time": "12:00:00",
    "interval": "1 day",
    "uuid": "6f2cdb5e-7f0b-4b0e-9a51-3f5c9d1a0c01",
    "json": "{}",
    "jsonb": "{}",
    "bytea": "\\x00",
    "inet": "192.0.2.1",
}
"""A value of a type, where the table has none to copy."""


@dataclass(frozen=True)
class Field:
    """One column.

    Args:
        name: Its name.
        type: Its type as `format_type` writes it.
        base: Name of the type in pg_type, that beneath it for a domain.
        kind: `b` base, `e` enum, `r` range, `m` multirange, `c` composite, `a` array.
        required: Whether it refuses NULL.
        defaulted: Whether it is filled when it is left out.
        given: Whether only the server may fill it.
        mod: Its `atttypmod`.
        labels: An enum's labels.
        element: Name of an array's element type.
    """

    name: str
    type: str
    base: str
    kind: str
    required: bool
    defaulted: bool
    given: bool
    mod: int
    labels: tuple[str, ...] = ()
    element: str = ""

    @property
    def length(self) -> int | None:
        """Most characters it takes; None when there is no limit."""
        return self.mod - 4 if self.base in ("varchar", "bpchar") and self.mod > 4 else None  # noqa: PLR2004 - VARHDRSZ


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key: the columns, the table they lead to, and its columns."""

    own: tuple[str, ...]
    parent: TableName
    other: tuple[str, ...]


@dataclass(frozen=True)
class RowFacts:
    """What a row of a table must look like.

    Args:
        table: The table.
        fields: Its columns, in attribute order.
        primary_key: Its key; empty when there is none.
        unique: Other sets of columns that no two rows share.
        foreign: Its foreign keys.
    """

    table: TableName
    fields: tuple[Field, ...]
    primary_key: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...]
    foreign: tuple[ForeignKey, ...]

    def field(self, name: str) -> Field | None:
        """The column of that name."""
        return next((field for field in self.fields if field.name == name), None)


def read_row_facts(connection: Connection, table: TableName) -> RowFacts:
    """Read them off the catalog.

    Raises:
        psycopg.Error: There is no such table, or it may not be looked at.
    """
    name = sql.Identifier(table.schema, table.name).as_string(connection)
    rows: list[Any] = connection.execute(_FIELDS, (name,)).fetchall()
    fields = tuple(Field(*row) for row in ((*row[:8], tuple(row[8]), row[9]) for row in rows))
    keys = [(tuple(names or ()), primary) for names, primary in connection.execute(_UNIQUE, (name,))]
    foreign = connection.execute(_FOREIGN, (name,)).fetchall()
    return RowFacts(
        table,
        fields,
        next((names for names, primary in keys if primary), ()),
        tuple(names for names, primary in keys if names and not primary),
        tuple(
            ForeignKey(tuple(own), TableName(schema, parent), tuple(other)) for schema, parent, own, other in foreign
        ),
    )


def samples(connection: Connection, table: TableName, column: str, *, most: int = 40) -> list[str | None]:
    """Values that a column has, as text: the longest, the shortest, and some of the others.

    Args:
        connection: A session.
        table: The table.
        column: The column.
        most: How many to give.
    """
    query = sql.SQL(
        "WITH v AS (SELECT DISTINCT {column}::text AS v FROM (SELECT {column} FROM {table} LIMIT 5000) t),"
        " n AS (SELECT v, row_number() OVER (ORDER BY length(v), v) AS up,"
        " row_number() OVER (ORDER BY length(v) DESC, v) AS down, row_number() OVER (ORDER BY md5(v)) AS mixed FROM v)"
        " SELECT v FROM n ORDER BY least(up, down, mixed), v LIMIT {most}"
    ).format(column=sql.Identifier(column), table=sql.Identifier(table.schema, table.name), most=sql.Literal(most))
    return [row[0] for row in connection.execute(query).fetchall()]


def one_row(
    connection: Connection, facts: RowFacts, names: Sequence[str], *, nth: int = 0
) -> dict[str, str | None] | None:
    """A row that the table should take: like one that is there, with keys of its own.

    Args:
        connection: A session.
        facts: What a row must look like.
        names: The columns to give.
        nth: Which of several such rows; each has other keys.

    Returns:
        Values as text; None where none can be thought of.
    """
    at = sql.Identifier(facts.table.schema, facts.table.name)
    listed = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in names)
    order = sql.SQL(" ORDER BY ") + sql.SQL(", ").join(map(sql.Identifier, facts.primary_key))
    query = sql.SQL("SELECT {} FROM {}{} LIMIT 1").format(listed, at, order if facts.primary_key else sql.SQL(""))
    there = connection.execute(query).fetchone()
    row: dict[str, str | None] = {}
    for place, name in enumerate(names):
        field = facts.field(name)
        if field is None:
            return None
        value: str | None = there[place] if there else _plain(field)
        if value is None and field.required:
            return None
        row[name] = value
    referring = {name for key in facts.foreign for name in key.own}
    for key in (facts.primary_key, *facts.unique):
        own = next((name for name in key if name in row and name not in referring), None)
        field = facts.field(own) if own else None
        if own is not None and field is not None and row[own] is not None:
            row[own] = _unused(connection, at, field, str(row[own]), nth)
    for foreign in facts.foreign:
        if not there and set(foreign.own) <= set(row):
            parent = sql.Identifier(foreign.parent.schema, foreign.parent.name)
            others = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in foreign.other)
            found = connection.execute(sql.SQL("SELECT {} FROM {} LIMIT 1").format(others, parent)).fetchone()
            row.update(zip(foreign.own, found or (None,) * len(foreign.own), strict=True))
    return row


def _plain(field: Field) -> str | None:
    """A value of a type, where the table has none to copy; NULL where it takes that."""
    if not field.required:
        return None
    if field.labels:
        return field.labels[0]
    if field.kind == "a":
        return "{}"
    return _PLAIN.get(field.base, "a" if field.base in _TEXTS else None)


def _unused(connection: Connection, table: sql.Identifier, field: Field, value: str, nth: int) -> str:
    """A value of a key that no row has."""
    name, number = sql.Identifier(field.name), sql.Literal(nth)
    if field.base in _NUMBERS:
        query = sql.SQL("SELECT (coalesce(max({}), 0) + 1 + {})::text FROM {}").format(name, number, table)
    elif field.base in _TEXTS:
        query = sql.SQL("SELECT left(md5((count(*) + {})::text), {}) FROM {}").format(number, field.length or 32, table)
    elif field.base == "uuid":
        query = sql.SQL("SELECT md5('parallelchange' || count(*) + {})::uuid::text FROM {}").format(number, table)
    elif field.base in ("timestamp", "timestamptz", "date"):
        query = sql.SQL("SELECT (max({}) + (1 + {}) * interval '1 day')::{}::text FROM {}").format(
            name, number, sql.SQL(field.base), table
        )
    else:
        return value
    row = connection.execute(query).fetchone()
    return str(row[0]) if row and row[0] is not None else value
