"""Round trips on the expanded copy: what one version writes and the other reads, of real values and generated ones."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import hypothesis
import psycopg
from hypothesis import HealthCheck, Phase, configuration
from hypothesis import strategies as st
from psycopg import sql

from parallelchange.adapters.postgres.connection import Connection, connect
from parallelchange.adapters.postgres.rows import RowFacts, one_row, read_row_facts, samples
from parallelchange.adapters.postgres.sequences import kept_sequences
from parallelchange.gates.roundtrip import RoundTripFact
from parallelchange.local.trial import FORMS, Broken, Case, Pair, Refused, Side, Trial, Values
from parallelchange.local.values import values_of
from parallelchange.model import TableName
from parallelchange.operations import Operation, SetNotNull
from parallelchange.operations.columns import ColumnsForm
from parallelchange.plan import Plan
from parallelchange.sql import search_path

__all__ = ["round_trips"]

_EXAMPLES = 100
"""Generated cases for each table and version."""
_SECONDS = 2.0
"""For real values, and again for generated ones, of each table and version; what is found by then counts."""
_REAL = 25
"""Rows that are there and are written again."""


class _Enough(BaseException):
    """It has been made smaller for long enough."""


@dataclass
class _Tally:
    """What came of the trials of one version on one table."""

    rows: int = 0
    refused: int = 0
    last: str = ""
    broken: str | None = None
    until: float | None = None

    def attempt(self, trial: Trial, side: Side, case: Case) -> None:
        """One trial, counted.

        Raises:
            Broken: Something went wrong.
        """
        if self.until is None:
            self.until = time.monotonic() + _SECONDS
        if time.monotonic() > self.until:
            if self.broken is not None:
                raise _Enough
            return
        try:
            trial.run(side, case)
        except Refused as refused:
            self.refused += 1
            self.last = str(refused)
        except Broken as broken:
            if self.broken is None:
                self.until = time.monotonic() + _SECONDS
            self.broken = str(broken)
            raise
        else:
            self.rows += 1


def round_trips(url: str, plan: Plan) -> dict[str, list[RoundTripFact]]:
    """Write to every table of a change as both versions do.

    Args:
        url: The expanded scratch copy; it is left as it was.
        plan: The plan.

    Returns:
        What came of it, by version.

    Raises:
        Unavailable: The copy does not answer.
    """
    old, new = plan.change.versions
    found: dict[str, list[RoundTripFact]] = {old.name: [], new.name: []}
    limits = {"statement_timeout": "10s", "idle_in_transaction_session_timeout": "0"}
    with connect(url, **limits) as connection, kept_sequences(connection), _no_storage():
        for table in plan.tables:
            connection.execute("BEGIN")
            try:
                connection.execute(f"SET LOCAL search_path = {search_path(table.schema)}")
                connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                for version, fact in _of_table(connection, plan, table):
                    found[version].append(fact)
            except psycopg.Error as error:
                why = f"the trial broke off: {str(error).splitlines()[0]}"
                for facts in found.values():
                    facts.append(RoundTripFact(str(table), 0, why=why))
            finally:
                if not connection.closed:
                    connection.execute("ROLLBACK")
    return found


def _of_table(connection: Connection, plan: Plan, table: TableName) -> Iterator[tuple[str, RoundTripFact]]:
    operations = [o for o in plan.change.database if o.table_name == table]
    facts = read_row_facts(connection, table)
    pair = _pair(plan, facts, operations)
    sides = _sides(plan, operations)
    shaped = {name for side in sides for name in side.own}
    plain = [f.name for f in facts.fields if f.name not in shaped and (not f.given or f.name in facts.primary_key)]
    _make_parents(connection, facts)
    rows = [row for nth in range(2) if (row := one_row(connection, facts, plain, nth=nth)) is not None]
    read = _read_by_up(facts, operations, plain)
    values = {name: _values(connection, facts, name) for name in (*shaped, *read)}
    known = {name: found for name, found in values.items() if found is not None}
    missing = [name for name, found in values.items() if found is None]
    if len(rows) < 2 or missing or not facts.primary_key:  # noqa: PLR2004 - two rows, for an INSERT of two
        why = f"no value is known for {', '.join(missing)}" if missing else "no row of it can be made up"
        yield from ((side.version, RoundTripFact(str(table), 0, why=why)) for side in sides)
        return
    old, new = sides
    trial = Trial(connection, pair, old, new, rows)
    cases = st.builds(
        Case,
        st.sampled_from(FORMS),
        st.booleans().map(lambda undeclared: not undeclared),
        *(st.fixed_dictionaries({name: known[name] for name in names}) for names in (old.own, new.own, read)),
    )
    real = _real(connection, facts, (old.own, new.own, read))
    for side in sides:
        yield side.version, _try(trial, side, real, cases, str(table))


def _try(trial: Trial, side: Side, real: Sequence[Case], cases: st.SearchStrategy[Case], table: str) -> RoundTripFact:
    """Real values first, then generated ones; hypothesis makes what goes wrong as small as it can."""
    tally = _Tally()

    @hypothesis.settings(
        max_examples=_EXAMPLES, database=None, deadline=None, derandomize=True, report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    @hypothesis.given(cases)
    def generated(case: Case) -> None:
        if not _ambiguous(side, case):
            tally.attempt(trial, side, case)

    why = ""
    try:
        for case in real:
            if not _ambiguous(side, case):
                tally.attempt(trial, side, case)
        tally.until = None  # generated ones have a time of their own
        generated()
    except (Broken, _Enough) as found:
        return RoundTripFact(table, tally.rows, tally.refused, str(found) or tally.broken)
    except hypothesis.errors.HypothesisException as error:
        why = f"the trial broke off: {error}"
    untaken = tally.last if side.new else ""
    why = why or ("" if tally.rows else tally.last)
    return RoundTripFact(table, tally.rows, tally.refused, tally.broken, why, untaken)


def _ambiguous(side: Side, case: Case) -> bool:
    """By value nothing but a value tells the new version from the old: undeclared, it must write one."""
    writes_new = side.new or case.form == "ON CONFLICT DO UPDATE"
    untold = not case.declared or side.application_name is None
    return untold and writes_new and all(value is None for value in case.new.values())


def _pair(plan: Plan, facts: RowFacts, operations: Sequence[Operation]) -> Pair:
    up: dict[str, str] = {}
    defaulted: set[str] = set()
    filled: set[str] = set()
    base = plan.base.tables[facts.table]
    for operation in operations:
        if isinstance(operation, ColumnsForm):
            shape = operation.shape(base)
            up |= shape.up
            defaulted |= {name for name, column in shape.new.items() if column.default is not None}
        elif isinstance(operation, SetNotNull):
            filled.add(operation.column)
    triggers = next(e.triggers for e in plan.expectations if e.table == facts.table)
    laws = tuple(law for law in plan.laws if law.table == facts.table)
    return Pair(facts, up, laws, frozenset(defaulted), frozenset(filled), tuple(triggers))


def _sides(plan: Plan, operations: Sequence[Operation]) -> tuple[Side, Side]:
    base = {o.table_name: plan.base.tables[o.table_name] for o in operations}
    old: list[str] = []
    new: list[str] = []
    for operation in operations:
        footprint = operation.footprint(base[operation.table_name])
        old += [*footprint.dropped, *footprint.not_null]
        new += [*footprint.added, *footprint.not_null]
    before, after = plan.change.versions
    return (
        Side(before.name, before.application_name, tuple(old), new=False),
        Side(after.name, after.application_name, tuple(new), new=True),
    )


def _read_by_up(facts: RowFacts, operations: Sequence[Operation], plain: Sequence[str]) -> tuple[str, ...]:
    """Columns outside of the shapes that an `up` may read: those of a row whose NULL is replaced."""
    if not any(isinstance(operation, SetNotNull) for operation in operations):
        return ()
    kept = {name for key in (facts.primary_key, *facts.unique) for name in key}
    kept |= {name for key in facts.foreign for name in key.own}
    return tuple(name for name in plain if name not in kept)


def _values(connection: Connection, facts: RowFacts, name: str) -> st.SearchStrategy[str | None] | None:
    known = facts.field(name)
    return values_of(known, samples(connection, facts.table, name)) if known else None


def _real(connection: Connection, facts: RowFacts, names: Sequence[Sequence[str]]) -> list[Case]:
    """Rows that are there: each column's longest and shortest, and others; one of them in every form."""
    listed = list(dict.fromkeys(name for each in names for name in each))
    columns = sql.SQL(", ").join(sql.SQL("{0}::text AS {0}").format(sql.Identifier(name)) for name in listed)
    table = sql.Identifier(facts.table.schema, facts.table.name)
    whole = sql.SQL("md5(t::text)")
    orders = [whole] + [
        sql.SQL("length({}) {}").format(sql.Identifier(name), sql.SQL(way))
        for name in listed
        for way in ("NULLS FIRST", "DESC NULLS LAST")
    ]
    found: dict[tuple[str | None, ...], None] = {}
    for order in orders:
        some = sql.SQL("SELECT * FROM (SELECT {} FROM {} LIMIT 5000) t ORDER BY {} LIMIT {}")
        many = _REAL if order is whole else 2
        rows = connection.execute(some.format(columns, table, order, sql.Literal(many))).fetchall()
        found.update(dict.fromkeys(map(tuple, rows)))
    cases = []
    for number, row in enumerate(found):
        at = dict(zip(listed, row, strict=True))
        shapes: list[Values] = [{name: at[name] for name in each} for each in names]
        each_way = [(form, declared) for form in FORMS for declared in (True, False)]
        ways = each_way if not number else [each_way[number % len(each_way)]]
        cases += [Case(form, declared, *shapes) for form, declared in ways]
    return cases


def _make_parents(connection: Connection, facts: RowFacts, depth: int = 3) -> None:
    """A parent for each foreign key whose table is empty; it goes with the transaction."""
    for key in facts.foreign if depth else ():
        parent = sql.Identifier(key.parent.schema, key.parent.name)
        if connection.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(parent)).fetchone():
            continue
        above = read_row_facts(connection, key.parent)
        _make_parents(connection, above, depth - 1)
        names = [f.name for f in above.fields if not f.given or f.name in above.primary_key]
        row = one_row(connection, above, names)
        if row is None:
            continue
        listed = sql.SQL(", ").join(map(sql.Identifier, names))
        values = sql.SQL(", ").join(map(sql.Literal, (row[name] for name in names)))
        insert = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})").format(parent, listed, values)
        connection.execute("SAVEPOINT parallelchange_parent")
        try:
            connection.execute(insert)
        except psycopg.Error:
            connection.execute("ROLLBACK TO SAVEPOINT parallelchange_parent")


@contextmanager
def _no_storage() -> Iterator[None]:
    """Hypothesis keeps tables of its own in the working directory, which is the user's repository."""
    if os.environ.get("HYPOTHESIS_STORAGE_DIRECTORY"):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="parallelchange-") as folder:
        configuration.set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            configuration.set_hypothesis_home_dir(None)
