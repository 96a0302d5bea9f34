"""The `columns` form: the new shape stands beside the old one and a trigger keeps both in step.

Every operation that replaces columns by columns describes itself as a `Shape`; what the
phases do about it is told here once.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from parallelchange.model import Backfill, Catalog, Column, Law, Lock, Statement, Table, TableName
from parallelchange.operations.base import Expression, Footprint, Problem, Sync, Writers
from parallelchange.sql import columns, ident, literal, object_name, qualified

__all__ = [
    "ColumnsForm",
    "NewColumn",
    "Shape",
    "check_not_null",
    "common_problems",
    "drop_check",
    "not_null_check",
    "prove_not_null",
    "set_not_null",
    "table_sql",
]

_COMPARED_BY_VALUE = {
    "smallint",
    "integer",
    "bigint",
    "boolean",
    "uuid",
    "date",
    "bytea",
    "oid",
    "timestamp without time zone",
    "timestamp with time zone",
}
_TEXT = {"text", "character varying"}


@dataclass(frozen=True)
class NewColumn:
    """A column of the new shape.

    Args:
        type: Its SQL type.
        not_null: Whether it is NOT NULL once the change is contracted.
        default: Its default; withheld until contract, given by the trigger before.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by the change file's reader

    type: str
    not_null: bool = False
    default: str | None = None


@dataclass(frozen=True)
class Shape:
    """Old columns, new columns, and how each is computed from the other.

    Args:
        old: Columns of the old shape.
        new: Columns of the new shape, by name.
        up: New column to SQL expression over the old shape.
        down: Old column to SQL expression over the new shape.
    """

    old: tuple[Column, ...]
    new: Mapping[str, NewColumn]
    up: Mapping[str, str]
    down: Mapping[str, str]


def table_sql(name: TableName) -> str:
    """A table's quoted name."""
    return qualified(name.schema, name.name)


def _to_the_letter(value: str, type_: str) -> str:
    """A value so that `IS DISTINCT FROM` sees every difference a reader sees.

    Equality of some types overlooks differences (1.0 and 1.00, one month and thirty days, citext), or does not
    exist (json); those are compared as text.
    """
    if type_ in _COMPARED_BY_VALUE:
        return value
    return f'{value} COLLATE "C"' if type_ in _TEXT else f'{value}::text COLLATE "C"'


_CONSTANT = re.compile(r"('(?:[^']|'')*'|-?[\d.]+|true|false|NULL)(::[\w .()]+)*", re.IGNORECASE)


def _undefaulted(column: Column) -> str | None:
    """Condition that a value is not just the default: defaults are filled in before a BEFORE trigger sees the row."""
    if column.default is None:
        return None
    value, given = (_to_the_letter(v, column.type) for v in (f"NEW.{ident(column.name)}", f"({column.default})"))
    return f"{value} IS DISTINCT FROM {given}"


def _moved(name: str, type_: str) -> str:
    """Condition that an UPDATE changed this column."""
    old, new = (_to_the_letter(f"{row}.{ident(name)}", type_) for row in ("OLD", "NEW"))
    return f"{old} IS DISTINCT FROM {new}"


def _agrees(column: Column, expression: str) -> str:
    """Condition that a column holds what an expression gives, as the column would store it."""
    exact = column.type in _COMPARED_BY_VALUE or column.type in _TEXT or column.type.startswith("character")
    stored = f"({expression})" if exact else f"({expression})::{column.type}"
    given = _to_the_letter(stored, "text" if column.type in _TEXT else column.type)
    return f"{_to_the_letter(ident(column.name), column.type)} IS NOT DISTINCT FROM {given}"


def not_null_check(table: TableName, column: str, change: str) -> str:
    """Name of the CHECK that proves a column NOT NULL before SET NOT NULL."""
    return object_name("parallelchange", change, table.name, column, "not_null")


def check_not_null(table: TableName, column: str, change: str) -> tuple[Statement, ...]:
    """Let no new NULL in; rows that are there are not looked at, so the lock is short."""
    name = ident(not_null_check(table, column, change))
    return (
        Statement(
            f"ALTER TABLE {table_sql(table)} ADD CONSTRAINT {name} CHECK ({ident(column)} IS NOT NULL) NOT VALID",
            Lock.ACCESS_EXCLUSIVE,
            table,
            f"new rows must have {column}",
        ),
    )


def drop_check(table: TableName, column: str, change: str) -> tuple[Statement, ...]:
    """Let NULL in again."""
    name = ident(not_null_check(table, column, change))
    sql = f"ALTER TABLE {table_sql(table)} DROP CONSTRAINT IF EXISTS {name}"
    return (Statement(sql, Lock.ACCESS_EXCLUSIVE, table, "NULL may be written again"),)


def prove_not_null(table: TableName, column: str, change: str) -> tuple[Statement, ...]:
    """Look at every row while reads and writes go on.

    PostgreSQL skips the scan of SET NOT NULL where a valid CHECK says the same (manual, ALTER TABLE).
    """
    name = ident(not_null_check(table, column, change))
    return (
        Statement(
            f"ALTER TABLE {table_sql(table)} VALIDATE CONSTRAINT {name}",
            Lock.SHARE_UPDATE_EXCLUSIVE,
            table,
            f"every row has {column}; reads and writes go on",
        ),
    )


def set_not_null(table: TableName, column: str, change: str) -> tuple[Statement, ...]:
    """SET NOT NULL on a proven column, and drop the proof."""
    at = table_sql(table)
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


def common_problems(base: Catalog, name: TableName, old: str) -> tuple[Problem, ...]:
    """What can be wrong with the table and the old column of any operation here."""
    table = base.table(name)
    if table is None:
        return (Problem("table", f"there is no table {name}", "check its name and schema, as in schema.table"),)
    problems = _table_problems(table)
    column = table.column(old)
    if column is None:
        near = ", ".join(column.name for column in table.columns)
        problems.append(Problem("column", f"{name} has no column {old}", f"it has {near}"))
    elif column.generated or column.identity:
        told = f"{name}.{old} is generated by the server"
        problems.append(Problem("column", told, "change its expression instead"))
    return tuple(problems)


def _table_problems(table: Table) -> list[Problem]:
    problems = []
    if table.kind != "r":
        problems.append(Problem("table", f"{table.name} is no ordinary table", "a change in columns form needs one"))
    elif not table.primary_key:
        told = f"{table.name} has no primary key, which the backfill goes along"
        problems.append(Problem("table", told, "add one first"))
    if table.children:
        told = f"{table.name} has children ({', '.join(table.children)}), whose rows no trigger of it sees"
        problems.append(Problem("table", told, "a change in columns form needs a table without"))
    if table.later_triggers:
        told = (
            f"the triggers {', '.join(table.later_triggers)} of {table.name} fire after ours and could part the shapes"
        )
        problems.append(Problem("table", told, "rename them to sort before `zz_parallelchange`"))
    return problems


class ColumnsForm(ABC):
    """The phases of an operation that replaces columns by columns; subclasses give the `Shape`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by the change file's reader

    table: str

    @abstractmethod
    def shape(self, base: Table) -> Shape:
        """Old and new columns and how each follows from the other."""

    @abstractmethod
    def replaced(self) -> str:
        """The old column."""

    @property
    def table_name(self) -> TableName:
        """The table it changes."""
        return TableName.parse(self.table)

    @property
    def types(self) -> tuple[str, ...]:
        """Types it names."""
        return ()

    def expressions(self, base: Table) -> tuple[Expression, ...]:
        """`up` over the old shape, `down` over the new one."""
        shape = self.shape(base)
        # Nothing else: the trigger would not see another column move, and the shapes would part.
        before = {column.name: column.type for column in shape.old}
        after = {name: new.type for name, new in shape.new.items()}
        return (
            *(Expression("up", sql, before) for sql in shape.up.values()),
            *(Expression("down", sql, after) for sql in shape.down.values()),
            *(Expression("default", new.default, {}) for new in shape.new.values() if new.default is not None),
        )

    def problems(self, base: Catalog) -> tuple[Problem, ...]:
        """Why it cannot be planned here."""
        found = common_problems(base, self.table_name, self.replaced())
        if found:
            return found
        table = base.tables[self.table_name]
        problems = []
        if self.replaced() in table.primary_key:
            problems.append(
                Problem(
                    "column",
                    f"{self.table}.{self.replaced()} is part of the primary key",
                    "replacing a key column is not supported in the columns form",
                )
            )
        lost = table.dependents.get(self.replaced(), ())
        if lost:
            problems.append(
                Problem(
                    "column",
                    f"{', '.join(lost)} would fall with {self.table}.{self.replaced()} at contract",
                    "drop what is no longer needed first; this form does not carry it over to the new shape",
                )
            )
        shape = self.shape(table)
        problems += [
            Problem("column", f"{self.table} already has a column {new}", "choose another name")
            for new in shape.new
            if table.column(new)
        ]
        problems += [
            Problem("up", "an expression holds the tag $parallelchange$", "leave it out")
            for expression in (*shape.up.values(), *shape.down.values())
            if "$parallelchange$" in expression
        ]
        return tuple(problems)

    def expand(self, base: Table) -> tuple[Statement, ...]:
        """Add the new columns, bare: no default and no constraint the old version could trip over."""
        shape = self.shape(base)
        adds = ", ".join(f"ADD COLUMN {ident(name)} {new.type}" for name, new in shape.new.items())
        return (
            Statement(
                f"ALTER TABLE {table_sql(base.name)} {adds}",
                Lock.ACCESS_EXCLUSIVE,
                base.name,
                "the new shape, empty and without default: no rewrite",
            ),
        )

    def sync(self, base: Table, writers: Writers) -> Sync:
        """Who wrote? By session where that is declared, else by the value that moved (§5)."""
        shape = self.shape(base)
        row = f"FROM (SELECT NEW.*) AS {ident(base.name.name)}"
        to_new = f"SELECT {', '.join(f'({shape.up[n]})' for n in shape.new)} INTO {columns(shape.new, of='NEW')} {row};"
        downs = ", ".join(f"({shape.down[c.name]})" for c in shape.old)
        to_old = f"SELECT {downs} INTO {columns((c.name for c in shape.old), of='NEW')} {row};"
        defaults = "".join(
            f"    IF NEW.{ident(name)} IS NULL THEN NEW.{ident(name)} := {new.default}; END IF;\n"
            for name, new in shape.new.items()
            if new.default is not None
        )
        agree = " AND ".join(_agrees(c, shape.down[c.name]) for c in shape.old)
        given_new = " OR ".join(f"NEW.{ident(name)} IS NOT NULL" for name in shape.new)
        given_old = " OR ".join(f"NEW.{ident(c.name)} IS NOT NULL" for c in shape.old)
        application = "current_setting('application_name')"
        is_new, is_old = (
            f"{application} = {literal(name)}" if name else "false" for name in (writers.new, writers.old)
        )
        place = f"{writers.change}: {base.name}"
        clash = (
            f"RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation', "
            f"MESSAGE = {literal(f'parallel change {place}: one statement wrote both shapes and they disagree')}, "
            f"HINT = {literal('write either the old or the new columns, or values that agree')};"
        )
        written = f"({given_old}) AND {' AND '.join(filter(None, map(_undefaulted, shape.old))) or 'true'}"
        refuses = f"    IF {written} AND NOT (SELECT {agree} {row}) THEN {clash} END IF;\n"
        if any(c.default is not None and not _CONSTANT.fullmatch(c.default) for c in shape.old):
            refuses = ""  # what such a default gave cannot be told from a written value
        contradicts = f"    IF ({given_new}) AND NOT (SELECT {agree} {row}) THEN {clash} END IF;\n"
        on_insert = (
            f"  IF {is_new} OR (NOT ({is_old}) AND ({given_new})) THEN\n{defaults}{refuses}    {to_old}\n"
            f"  ELSE\n{contradicts}    {to_new}\n  END IF;\n"
        )
        moved_old = " OR ".join(_moved(c.name, c.type) for c in shape.old)
        moved_new = " OR ".join(_moved(name, new.type) for name, new in shape.new.items())
        on_update = (
            f"  IF {moved_new} THEN\n"
            f"    IF ({moved_old}) THEN\n"
            f"      IF NOT (SELECT {agree} {row}) THEN {clash} END IF;\n"
            f"    ELSE\n      {to_old}\n    END IF;\n"
            f"  ELSIF {moved_old} THEN\n    {to_new}\n  END IF;\n"
        )
        return Sync(on_insert, on_update, None, f"{moved_old} OR {moved_new}")

    def backfills(self, base: Table) -> tuple[Backfill, ...]:
        """Rows whose new shape is still empty; never a row the new version has written."""
        shape = self.shape(base)
        unfilled = " AND ".join(f"{ident(name)} IS NULL" for name in shape.new)
        return (Backfill(base.name, base.primary_key, {n: shape.up[n] for n in shape.new}, unfilled),)

    def migrate(self, base: Table, change: str) -> tuple[Statement, ...]:
        """Let no NULL in where the new shape asks for it."""
        return tuple(s for name in self._required(base) for s in check_not_null(base.name, name, change))

    def relax(self, base: Table, change: str) -> tuple[Statement, ...]:
        """Drop the checks that keep NULL out."""
        return tuple(s for name in self._required(base) for s in drop_check(base.name, name, change))

    def prove(self, base: Table, change: str) -> tuple[Statement, ...]:
        """Prove NOT NULL where the new shape asks for it."""
        return tuple(s for name in self._required(base) for s in prove_not_null(base.name, name, change))

    def _required(self, base: Table) -> list[str]:
        return [name for name, new in self.shape(base).new.items() if new.not_null]

    def contract(self, base: Table, change: str) -> tuple[Statement, ...]:
        """Give the new shape its defaults and constraints, and drop the old one."""
        shape, at = self.shape(base), table_sql(base.name)
        statements: list[Statement] = []
        for name, new in shape.new.items():
            if new.default is not None:
                statements.append(
                    Statement(
                        f"ALTER TABLE {at} ALTER COLUMN {ident(name)} SET DEFAULT {new.default}",
                        Lock.ACCESS_EXCLUSIVE,
                        base.name,
                        "the default the trigger gave until now",
                    )
                )
            if new.not_null:
                statements.extend(set_not_null(base.name, name, change))
        drops = ", ".join(f"DROP COLUMN {ident(column.name)}" for column in shape.old)
        statements.append(
            Statement(f"ALTER TABLE {at} {drops}", Lock.ACCESS_EXCLUSIVE, base.name, "the old shape goes")
        )
        return tuple(statements)

    def revert(self, base: Table, change: str) -> tuple[Statement, ...]:  # noqa: ARG002 - columns take their checks along
        """Drop the new columns; checks on them go too."""
        drops = ", ".join(f"DROP COLUMN {ident(name)}" for name in self.shape(base).new)
        return (
            Statement(
                f"ALTER TABLE {table_sql(base.name)} {drops}", Lock.ACCESS_EXCLUSIVE, base.name, "the new shape goes"
            ),
        )

    def laws(self, base: Table) -> tuple[Law, ...]:
        """`old IS NOT DISTINCT FROM down(new)` for each old column, and the new NOT NULLs."""
        shape = self.shape(base)
        derived = {name: shape.up[name] for name in shape.new}
        shows = (*base.primary_key, *(c.name for c in shape.old), *shape.new)
        laws = []
        for column in shape.old:
            says = _agrees(column, shape.down[column.name])
            laws.append(
                Law(
                    f"{base.name.name}.{column.name}",
                    base.name,
                    says,
                    says,
                    derived,
                    shows,
                    f"{column.name} can be had back from {', '.join(shape.new)}",
                )
            )
        for name, new in shape.new.items():
            if new.not_null:
                says = f"{ident(name)} IS NOT NULL"
                laws.append(Law(f"{base.name.name}.{name}", base.name, says, says, derived, shows, f"{name} is set"))
        return tuple(laws)

    def footprint(self, base: Table) -> Footprint:
        """New columns after expand, no old ones after contract."""
        shape = self.shape(base)
        return Footprint({name: new.type for name, new in shape.new.items()}, tuple(c.name for c in shape.old))
