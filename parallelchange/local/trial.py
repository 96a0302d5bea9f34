"""One trial of a round trip: a version writes a row, the other one writes to it too, and both read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.adapters.postgres.rows import Field, RowFacts
from parallelchange.model import Law
from parallelchange.sql import ident

__all__ = ["FORMS", "UNDECLARED", "Broken", "Case", "Pair", "Refused", "Side", "Trial", "Values"]

Values = Mapping[str, str | None]

FORMS = ("INSERT", "INSERT of two rows", "INSERT … SELECT", "INSERT … ON CONFLICT", "ON CONFLICT DO UPDATE", "COPY")
"""The ways in which a row is first written."""

UNDECLARED = "parallelchange-roundtrip"
"""`application_name` of a session that no version declares: the trigger tells by value who writes."""

_CLASH = "23000"  # what our trigger raises where one statement writes both shapes


class Broken(Exception):
    """Something went wrong; the message says what, with the values."""


class Refused(Exception):
    """The server takes no such row, and would not have taken it before the change either."""


@dataclass(frozen=True)
class Side:
    """One version as a writer.

    Args:
        version: Its name.
        application_name: What its sessions call themselves; None when that is not declared.
        own: Its columns of the shapes that the change speaks of.
        new: Whether it is the new version.
    """

    version: str
    application_name: str | None
    own: tuple[str, ...]
    new: bool


@dataclass(frozen=True)
class Case:
    """What is tried.

    Args:
        form: How the row is first written.
        declared: Whether the sessions say who they are.
        old: Values of the old version's columns.
        new: Values of the new version's.
        rest: Values of other columns that the change reads.
    """

    form: str
    declared: bool
    old: Values
    new: Values
    rest: Values


@dataclass(frozen=True)
class Pair:
    """What the change says of one table.

    Args:
        facts: What a row of it must look like, as it is expanded.
        up: New column to the expression that gives it.
        laws: The laws of the table.
        defaulted: New columns that are given a default where the new version writes NULL.
        filled: Columns of both versions in which NULL is replaced.
        triggers: Our triggers on it.
    """

    facts: RowFacts
    up: Mapping[str, str]
    laws: tuple[Law, ...]
    defaulted: frozenset[str]
    filled: frozenset[str]
    triggers: tuple[str, ...]


class Trial:
    """Trials on one table, each undone at its end.

    Args:
        connection: A session inside a transaction.
        pair: The table.
        old: The old version.
        new: The new one.
        rows: Two rows of the columns that belong to no shape.
    """

    def __init__(self, connection: Connection, pair: Pair, old: Side, new: Side, rows: Sequence[Values]) -> None:
        self.connection, self.pair, self.old, self.new, self.rows = connection, pair, old, new, rows
        self.table = sql.Identifier(pair.facts.table.schema, pair.facts.table.name)
        self.key = pair.facts.primary_key
        self.both = tuple(dict.fromkeys((*old.own, *new.own)))
        shaped = {*self.both, *self.key}
        self.spare = next((n for n in rows[0] if n not in shaped and not self._field(n).given), None)

    def run(self, writer: Side, case: Case) -> None:
        """Have a version write first.

        Raises:
            Broken: Something went wrong.
            Refused: The row is not taken.
        """
        self.connection.execute("SAVEPOINT parallelchange_trial")
        try:
            self._run(writer, case)
        finally:
            self.connection.execute("ROLLBACK TO SAVEPOINT parallelchange_trial")
            self.connection.execute("RELEASE SAVEPOINT parallelchange_trial")

    def _run(self, writer: Side, case: Case) -> None:
        other = self.old if writer.new else self.new
        wrote, writes = (case.new, case.old) if writer.new else (case.old, case.new)
        moved = self._first(writer, other, case)
        for row in self.rows[: 2 if case.form == "INSERT of two rows" else 1]:
            self._check(writer, wrote, row, case, f"by {case.form}", moved=moved)
        self._keeps(other, case, f"what {writer.version} wrote ({_shown(wrote)})")
        try:
            self._update(other, writes, case)
        except (Refused, Broken):
            return  # what the other one may write is for its own trials to say
        self._keeps(writer, case, f"what {other.version} wrote ({_shown(writes)})")
        try:
            moved = self._update(writer, wrote, case)
        except Refused:
            return
        self._check(writer, wrote, self.rows[0], case, f"by UPDATE of a row of {other.version}", moved=moved)

    def _first(self, writer: Side, other: Side, case: Case) -> bool:
        """The first write; whether what it wrote has moved anything."""
        values, theirs = (case.new, case.old) if writer.new else (case.old, case.new)
        moves = True
        if case.form == "ON CONFLICT DO UPDATE":
            try:
                self._write(other, case, self._inserts(other, "INSERT", theirs, case.rest), theirs)
            except Broken as broken:
                raise Refused(str(broken)) from None
            moves = self._moves(writer, values)
        if case.form == "COPY":
            self._write(writer, case, lambda: self._copies(values, case.rest), values)
        else:
            self._write(writer, case, self._inserts(writer, case.form, values, case.rest), values)
        return moves

    def _update(self, side: Side, values: Values, case: Case) -> bool:
        """Set a version's columns; whether that moved anything."""
        moves = self._moves(side, values)
        self._write(side, case, self._updates({name: self._value(name, values[name]) for name in side.own}), values)
        return moves

    def _updates(self, sets: Mapping[str, sql.Composable]) -> sql.Composed:
        listed = sql.SQL(", ").join(sql.SQL("{} = {}").format(sql.Identifier(name), to) for name, to in sets.items())
        return sql.SQL("UPDATE {} SET {} WHERE {}").format(self.table, listed, self._where(self.rows[0]))

    def _keeps(self, side: Side, case: Case, what: str) -> None:
        """Writes that change no value of a shape leave both as they are."""
        before = self._read(self.rows[0], self.both)
        same = [(self.spare,)] if self.spare else []
        statements = [self._updates({name: sql.Identifier(name) for name in names}) for names in (*same, side.own)]
        self._write(side, case, sql.SQL("; ").join(statements), {})
        after = self._read(self.rows[0], self.both)
        if after != before:
            raise Broken(
                f"an UPDATE by {side.version} of something else, or of its columns to the values they have, does not"
                f" keep {what}: {_pairs(self.both, before)} became {_pairs(self.both, after)}"
            )

    def _write(self, side: Side, case: Case, act: sql.Composed | Callable[[], None], values: Values) -> None:
        """Write as a version; what is refused now and was not before the change is broken."""
        name = (side.application_name if case.declared else None) or UNDECLARED
        first = sql.SQL("SELECT set_config('application_name', {}, false)").format(name)
        error = self._attempt(act, first)
        if error is None:
            return
        cannot = "cannot" if side.new else "can no longer"
        told = f"{side.version} {cannot} write ({_shown(values)}) while both shapes live: {_first_line(error)}"
        if error.sqlstate == _CLASH or (not side.new and self._taken_without(act)):
            raise Broken(told)
        raise Refused(told)

    def _attempt(self, act: sql.Composed | Callable[[], None], *first: sql.Composed) -> psycopg.Error | None:
        """Do something in a savepoint; in one message to the server where that can be."""
        save, release = sql.SQL("SAVEPOINT parallelchange_write"), sql.SQL("RELEASE SAVEPOINT parallelchange_write")
        try:
            if isinstance(act, sql.Composed):
                self.connection.execute(sql.SQL("; ").join([*first, save, act, release]))
            else:
                self.connection.execute(sql.SQL("; ").join([*first, save]))
                act()
                self.connection.execute(release)
        except psycopg.Error as error:
            if self.connection.closed:
                raise
            self.connection.execute("ROLLBACK TO SAVEPOINT parallelchange_write")
            return error
        return None

    def _taken_without(self, act: sql.Composed | Callable[[], None]) -> bool:
        """Whether the same is taken without our triggers, as it was before the change; undone at once."""
        self.connection.execute("SAVEPOINT parallelchange_without")
        try:
            for name in self.pair.triggers:
                off = sql.SQL("ALTER TABLE {} DISABLE TRIGGER {}").format(self.table, sql.Identifier(name))
                self.connection.execute(off)
            return self._attempt(act) is None
        finally:
            self.connection.execute("ROLLBACK TO SAVEPOINT parallelchange_without")

    def _copies(self, values: Values, rest: Values) -> None:
        row = {**self.rows[0], **rest, **values}
        listed = sql.SQL(", ").join(map(sql.Identifier, row))
        into = sql.SQL("COPY {} ({}) FROM STDIN").format(self.table, listed)
        with self.connection.cursor().copy(into) as copy:
            copy.write_row(list(row.values()))

    def _inserts(self, side: Side, form: str, values: Values, rest: Values) -> sql.Composed:
        names = [*self.rows[0], *side.own]
        given = [{**row, **rest, **values} for row in self.rows[: 2 if form == "INSERT of two rows" else 1]]
        listed = sql.SQL(", ").join(map(sql.Identifier, names))
        tuples = [sql.SQL(", ").join(self._value(name, row[name]) for name in names) for row in given]
        if form == "INSERT … SELECT":
            source = sql.SQL(" UNION ALL ").join(sql.SQL("SELECT {}").format(each) for each in tuples)
        else:
            source = sql.SQL("VALUES ") + sql.SQL(", ").join(sql.SQL("({})").format(each) for each in tuples)
        upsert: sql.Composable = sql.SQL("")
        if "ON CONFLICT" in form:
            sets = sql.SQL(", ").join(sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name)) for name in side.own)
            key = sql.SQL(", ").join(map(sql.Identifier, self.key))
            upsert = sql.SQL(" ON CONFLICT ({}) DO UPDATE SET {}").format(key, sets)
        return sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE {}{}").format(self.table, listed, source, upsert)

    def _check(self, side: Side, values: Values, row: Values, case: Case, how: str, *, moved: bool) -> None:
        """What both versions read of a row that one has written."""
        wrote = f"{side.version} wrote ({_shown(values)}) {how}{'' if case.declared else ', undeclared'}"
        checks: list[tuple[str, sql.Composable]] = []
        for name in side.own:
            if not (values[name] is None and name in (self.pair.defaulted | self.pair.filled)):
                same = sql.SQL('{}::text COLLATE "C" IS NOT DISTINCT FROM {}').format(
                    sql.Identifier(name), self._as_stored(name, values[name])
                )
                checks.append((f"{name} reads otherwise", same))
        if not side.new and moved:
            for name, up in self.pair.up.items():
                given = f'(({up})::{self._field(name).type})::text COLLATE "C"'
                same = sql.SQL('{}::text COLLATE "C" IS NOT DISTINCT FROM ').format(sql.Identifier(name)) + sql.SQL(
                    given
                )
                checks.append((f"{name} is not what `{up}` gives", same))
        checks += [(f"the law is broken that {law.says}", sql.SQL(law.holds)) for law in self.pair.laws]
        asked = sql.SQL(", ").join(sql.SQL("({}) IS TRUE").format(condition) for _, condition in checks)
        alias = sql.SQL(ident(self.pair.facts.table.name))
        query = sql.SQL("SELECT {} FROM {} AS {} WHERE {}").format(asked, self.table, alias, self._where(row))
        try:
            found = self.connection.execute(query).fetchone()
        except psycopg.Error as error:
            if self.connection.closed:
                raise
            raise Broken(f"{wrote}, and what holds for it cannot be computed: {_first_line(error)}") from None
        if not found:
            raise Broken(f"{wrote}, and the row is not there")
        for (what, _), holds in zip(checks, found, strict=True):
            if not holds:
                read = _pairs(self.both, self._read(row, self.both))
                raise Broken(f"{wrote}, and {what}: there is {read}")

    def _moves(self, side: Side, values: Values) -> bool:
        """Whether these values differ from those that the row has; where there is no row they do."""
        pairs = sql.SQL(" OR ").join(
            sql.SQL('{}::text COLLATE "C" IS DISTINCT FROM {}').format(
                sql.Identifier(name), self._as_stored(name, values[name])
            )
            for name in side.own
        )
        query = sql.SQL("SELECT {} FROM {} WHERE {}").format(pairs, self.table, self._where(self.rows[0]))
        try:
            found = self.connection.execute(query).fetchone()
        except psycopg.Error as error:
            if self.connection.closed:
                raise
            raise Refused(_first_line(error)) from None  # no value of the column's type at all
        return found is None or bool(found[0])

    def _as_stored(self, name: str, value: str | None) -> sql.Composed:
        return sql.SQL('({}::{})::text COLLATE "C"').format(sql.Literal(value), sql.SQL(self._field(name).type))

    def _value(self, name: str, value: str | None) -> sql.Composed:
        """A value of a column; of a text without its limit, so that what is too long is refused and not cut."""
        field = self._field(name)
        cast = "text" if field.length else field.type
        return sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(cast))

    def _where(self, row: Values) -> sql.Composed:
        return sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), self._value(name, row[name])) for name in self.key
        )

    def _read(self, row: Values, names: Sequence[str]) -> tuple[str | None, ...]:
        listed = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in names)
        query = sql.SQL("SELECT {} FROM {} WHERE {}").format(listed, self.table, self._where(row))
        found = self.connection.execute(query).fetchone()
        return tuple(found) if found else ()

    def _field(self, name: str) -> Field:
        field = self.pair.facts.field(name)
        assert field is not None
        return field


def _shown(values: Values) -> str:
    return ", ".join(f"{name} {_one(value)}" for name, value in values.items())


def _pairs(names: Sequence[str], values: Sequence[str | None]) -> str:
    return ", ".join(f"{name} {_one(value)}" for name, value in zip(names, values, strict=False)) or "no row"


def _one(value: str | None) -> str:
    text = "NULL" if value is None else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(value or '')} characters)"


_LONGEST = 60


def _first_line(error: psycopg.Error) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
