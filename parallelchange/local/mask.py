"""Masking: which expression the source computes instead of a column, and which rules make no sense."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from parallelchange.change import Mask
from parallelchange.errors import InvalidFile
from parallelchange.model import TableName
from parallelchange.sql import columns as names
from parallelchange.sql import ident, literal

__all__ = ["ForeignKey", "Rules", "SourceColumn", "SourceTable", "apply_masks", "expression", "select_list"]

_ENOUGH = 60
"""Bits that keep two masked values apart, however many rows are copied."""

_HALVES = {"int2": 7, "int4": 15, "int8": 31}
_ROUNDS = 4


@dataclass(frozen=True)
class SourceColumn:
    """A column of the source.

    Args:
        name: Its name.
        type: Its type, as declared.
        bare: Its type without domains and modifiers.
        base: Name of that type in the catalog.
        typmod: Its modifier, or its domain's; -1 for none.
        required: Whether it is NOT NULL.
        generated: Whether the server computes it.
    """

    name: str
    type: str
    bare: str
    base: str
    typmod: int
    required: bool
    generated: bool


@dataclass(frozen=True)
class SourceTable:
    """A table of the source.

    Args:
        oid: Its id.
        name: Its name.
        kind: Its relkind.
        ours: Whether its rows are taken; those of an extension are made by the extension.
        key: Columns that tell its rows apart, in order.
        unique: Columns that are in a unique index.
        leaves: Partitions with rows that its root has; 1 for a plain table.
        above: Ids of the tables it is a partition of or inherits from.
        columns: Its columns by name.
    """

    oid: int
    name: TableName
    kind: str
    ours: bool
    key: tuple[str, ...]
    unique: frozenset[str]
    leaves: int
    above: frozenset[int]
    columns: Mapping[str, SourceColumn]

    @property
    def stored(self) -> tuple[SourceColumn, ...]:
        """The columns that are copied: the others the copy computes."""
        return tuple(column for column in self.columns.values() if not column.generated)


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key: ids of both tables, and the pairs of columns."""

    child: int
    parent: int
    pairs: tuple[tuple[str, str], ...]


Rules = Mapping[tuple[int, str], Mask]


def apply_masks(masks: Iterable[Mask], tables: Sequence[SourceTable], keys: Sequence[ForeignKey]) -> Rules:
    """Find the column of each rule, in the table and in all that are partitions of it or inherit from it.

    Args:
        masks: The rules.
        tables: All tables of the source.
        keys: All foreign keys of the source.

    Returns:
        The rule of each masked column, by the table's id and the column's name.

    Raises:
        InvalidFile: A rule names no column, or would break a key.
    """
    rules: dict[tuple[int, str], Mask] = {}
    for mask in masks:
        table = next((t for t in tables if t.name == mask.table), None)
        if table is None:
            _refuse(mask, f"the database has no table {mask.table}", "name tables as schema.table, or table in public")
        if any(other.kind == "p" and other.oid in table.above for other in tables):
            # Its rows are read through the table it is a partition of as well.
            _refuse(mask, f"{table.name} is a partition", "name the table it is a partition of")
        for one in tables:
            if one is not table and table.oid not in one.above:
                continue
            other = rules.setdefault((one.oid, mask.column), mask)
            if other is not mask:
                _refuse(mask, f"{one.name}.{mask.column} has two rules", "leave one of them out")
            _check_column(mask, one)
    by_oid = {table.oid: table for table in tables}
    for key in keys:
        for own, other_name in key.pairs:
            _check_pair(rules, (by_oid[key.child], own), (by_oid[key.parent], other_name))
    return rules


def _check_column(mask: Mask, table: SourceTable) -> None:
    column = table.columns.get(mask.column)
    if column is None:
        _refuse(mask, f"{table.name} has no column {mask.column}", f"it has {names(table.columns)}")
    if column.generated:
        _refuse(mask, "the column is computed from others", "mask those: the copy computes it from what they become")
    if mask.rule == "null" and (column.required or column.name in table.unique):
        what = "a key" if column.name in table.unique else "NOT NULL"
        _refuse(mask, f"the column is {what}, and cannot be null", "use `hash` or `{sql: EXPRESSION}`")
    if mask.rule == "hash":
        bits = _bits(column)
        if bits is None:
            _refuse(mask, f"there is no hash of type {column.type}", "use `null` or `{sql: EXPRESSION}`")
        if bits < _ENOUGH and column.name in table.unique and column.base not in _HALVES:
            _refuse(
                mask, f"{column.type} has no room for hashes that stay unique", "use `{sql: EXPRESSION}` that is unique"
            )


def _check_pair(rules: Rules, child: tuple[SourceTable, str], parent: tuple[SourceTable, str]) -> None:
    own, other = rules.get((child[0].oid, child[1])), rules.get((parent[0].oid, parent[1]))
    mask = own or other
    if mask is None:
        return
    one, two = child[0].columns[child[1]], parent[0].columns[parent[1]]
    alike = own is not None and other is not None and own.rule == other.rule == "hash"
    if not alike or (one.base, one.typmod) != (two.base, two.typmod):
        _refuse(
            mask,
            f"{child[0].name}.{one.name} refers to {parent[0].name}.{two.name}, and both must be masked alike",
            "give both `hash`, and the same type, or leave both as they are",
        )


def _refuse(mask: Mask, message: str, hint: str) -> NoReturn:
    key = f"rehearsal.mask.{mask.table}.{mask.column}"
    raise InvalidFile(f"`{key}`: {message}", path=mask.path, line=mask.line, hint=hint)


def select_list(table: SourceTable, rules: Rules, key: str) -> str:
    """What is selected of a row that leaves the source, over the table by its own name."""
    return ", ".join(expression(table, column.name, rules, key) for column in table.stored)


def expression(table: SourceTable, name: str, rules: Rules, key: str) -> str:
    """The value of a column as the copy has it.

    Args:
        table: The table, which the statement calls by its bare name.
        name: The column.
        rules: The rules in force.
        key: Secret of this copy: without it nobody tells a value from its hash by trying.
    """
    column, value = table.columns[name], f"{ident(table.name.name)}.{ident(name)}"
    rule = rules.get((table.oid, name))
    if rule is None:
        return value
    if rule.rule == "null":
        return f"NULL::{column.type}"
    if rule.rule == "hash":
        return f"CAST({_hash(column, value, key)} AS {column.type})"
    # COALESCE refuses sets; the line break ends a comment.
    return f"CAST(COALESCE(({rule.expression}\n)) AS {column.type})"


def _bits(column: SourceColumn) -> int | None:
    """How many bits of the hash the type has room for; None when it cannot hold any."""
    length = column.typmod - 4  # how PostgreSQL keeps the length of a string
    if column.base in ("varchar", "bpchar") and length > 0:
        return min(length * 4, 256)
    if column.base == "numeric" and column.typmod >= 0:
        return int((length >> 16 & 0xFFFF) * 3.3)
    known = {"text": 256, "varchar": 256, "bpchar": 4, "citext": 256, "uuid": 128, "bytea": 256, "numeric": 60}
    return {**known, "float8": 53, "float4": 24, "int2": 14, "int4": 30, "int8": 62}.get(column.base)


def _hash(column: SourceColumn, value: str, key: str) -> str:
    if column.base in _HALVES:
        return _permuted(column.base, value, key)
    if column.base == "bytea":
        return f"pg_catalog.sha256(pg_catalog.convert_to({literal(key)}, 'UTF8') || {value})"
    # Two values that citext holds for equal have one hash.
    hexed = _hexed(f"pg_catalog.lower({value}::text)" if column.base == "citext" else f"{value}::text", key)
    if column.base == "uuid":
        return f"pg_catalog.left({hexed}, 32)::uuid"
    if column.base in ("numeric", "float4", "float8"):
        number = f"('x' || pg_catalog.left({hexed}, 15))::bit(60)::bigint"
        return _scaled(column, number)
    length = column.typmod - 4
    return f"pg_catalog.left({hexed}, {length})" if length > 0 else hexed


def _hexed(value: str, key: str) -> str:
    return f"pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to({literal(key)} || {value}, 'UTF8')), 'hex')"


def _scaled(column: SourceColumn, number: str) -> str:
    if column.base != "numeric":
        return f"({number} % {1 << (53 if column.base == 'float8' else 24)})"
    if column.typmod < 0:
        return f"{number}::numeric"
    packed = column.typmod - 4  # precision above, and below it the scale as 11 bits with a sign
    precision, scale = packed >> 16 & 0xFFFF, ((packed & 0x7FF) ^ 1024) - 1024
    return f"(({number}::numeric % '1e{precision}'::numeric) * '1e{-scale}'::numeric)"


def _permuted(base: str, value: str, key: str) -> str:
    """A permutation of the integers (a Feistel network), so that no two become one; the sign stays."""
    half = _HALVES[base]
    mask, low = (1 << half) - 1, (1 << 2 * half) - 1
    steps = [
        f"(SELECT {value}::int8 AS v) s0",
        "LATERAL (SELECT CASE WHEN v < 0 THEN ~v ELSE v END AS w) s1",
        f"LATERAL (SELECT (w >> {half}) & {mask} AS l0, w & {mask} AS r0) s2",
    ]
    for step in range(_ROUNDS):
        mixed = f"('x' || pg_catalog.left({_hexed(f'{step} || r{step}::text', key)}, 8))::bit(32)::int8 & {mask}"
        # OFFSET 0 keeps the planner from writing each round into the next, where it would be computed many times.
        steps.append(
            f"LATERAL (SELECT r{step} AS l{step + 1}, l{step} # ({mixed}) AS r{step + 1} OFFSET 0) s{step + 3}"
        )
    joined = f"(w & ~{low}::int8) | (l{_ROUNDS} << {half}) | r{_ROUNDS}"
    return f"(SELECT CASE WHEN v < 0 THEN ~({joined}) ELSE {joined} END FROM {', '.join(steps)})"
