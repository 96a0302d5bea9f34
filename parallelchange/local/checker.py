"""Holds the shop's database against the load's log: is everything there that was acknowledged?

The comparison is set-based and sees one snapshot. The log is replayed first: of each customer and field the
last acknowledged value counts. Where the outcome of a later write is unknown, its value is right as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg import sql

from parallelchange.errors import InvalidFile
from parallelchange.model import Finding, Severity, Verdict

__all__ = ["CheckReport", "Replay", "check", "replay"]

Shape = Literal["base", "expanded", "contracted"]

EXAMPLES = 20
NEW_NAME = "c.first_name || coalesce(' ' || c.last_name, '')"
NAMES: Mapping[Shape, Sequence[str]] = {
    "base": ("c.name",),
    "expanded": ("c.name", NEW_NAME),
    "contracted": (NEW_NAME,),
}
"""How each state of the schema tells a customer's name; where it tells it twice, both must be right."""

TABLES = """
CREATE TEMP TABLE acked_customers (id bigint, names text[], emails text[]) ON COMMIT DROP;
CREATE TEMP TABLE acked_orders (customer_id bigint, item text, quantity integer) ON COMMIT DROP
"""

MISSING = """
SELECT format('customer %s is gone', a.id)
FROM acked_customers a LEFT JOIN customers c USING (id) WHERE c.id IS NULL
"""
VALUE = """
SELECT format('customer %s: {label} is %L, acknowledged was %L',
              a.id, left({found}, 60), left(a.{accepted}[1], 60))
FROM acked_customers a JOIN customers c USING (id)
WHERE a.{accepted} IS NOT NULL AND ({found} = ANY (a.{accepted})) IS NOT TRUE
"""
ORDERS_LOST = """
SELECT format('customer %s: order of %L is gone', a.customer_id, a.item)
FROM acked_orders a LEFT JOIN orders o USING (customer_id, item, quantity) WHERE o.id IS NULL
"""
ORDERS_TWICE = """
SELECT format('customer %s: order of %L is there %s times', a.customer_id, a.item, count(*))
FROM acked_orders a JOIN orders o USING (item) GROUP BY a.customer_id, a.item HAVING count(*) > 1
"""
DISAGREE = """
SELECT format('customer %s: name is %L, the new shape says %L', c.id, left(c.name, 60), left({new}, 60))
FROM customers c WHERE c.name IS DISTINCT FROM {new}
"""


@dataclass(frozen=True)
class CheckReport:
    """What the checker found.

    Args:
        verdict: `unknown` when nothing was acknowledged, so nothing was proven.
        state: The state of the schema it was checked in.
        acknowledged_writes: Acknowledged writes in the log.
        uncertain_writes: Writes whose outcome nobody knows.
        lost_writes: Last acknowledged values, customers and orders that the database does not show.
        wrong_rows: Rows whose two shapes disagree, and orders that are there more than once.
        rows: Customers in the database, all of which were looked at.
        examples: The first 20 of both, in words.
    """

    verdict: Verdict
    state: Shape
    acknowledged_writes: int
    uncertain_writes: int
    lost_writes: int
    wrong_rows: int
    rows: int
    examples: tuple[str, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The same as findings, for documents that judge."""
        found = [Finding("checker.wrong", Severity.ERROR, example) for example in self.examples]
        if not self.acknowledged_writes:
            message = "the log has no acknowledged write, so nothing is proven"
            found.append(Finding("checker.nothing", Severity.ERROR, message, remedy="run the load for longer"))
        return tuple(found)


@dataclass
class Replay:
    """The log, replayed.

    Args:
        acknowledged: Acknowledged writes.
        uncertain: Writes of unknown outcome.
        last: Per customer and field (`name`, `email`) the last acknowledged value, if there was one.
        possible: Per customer and field the values that writes of unknown outcome may have left.
        orders: Acknowledged orders: customer, item, quantity.
    """

    acknowledged: int = 0
    uncertain: int = 0
    last: dict[int, dict[str, str]] = field(default_factory=dict)
    possible: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    orders: list[tuple[int, str, int]] = field(default_factory=list)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Replay one line."""
        customer = entry["id"]
        values = {name: entry[name] for name in ("name", "email") if name in entry}
        if entry["outcome"] == "acknowledged":
            self.acknowledged += 1
            self.last.setdefault(customer, {}).update(values)
            if entry["kind"] == "order":
                self.orders.append((customer, entry["item"], entry["quantity"]))
            return
        self.uncertain += 1
        for name, value in values.items():
            self.possible.setdefault((customer, name), []).append(value)

    def accepted(self, customer: int, name: str) -> list[str] | None:
        """The values that are right, the acknowledged one first; None when any is."""
        last = self.last[customer].get(name)
        return None if last is None else [last, *self.possible.get((customer, name), [])]


def replay(log: Path) -> Replay:
    """Read the load's log. A last line that was cut off by a kill was not acknowledged to anybody.

    Raises:
        InvalidFile: It cannot be read, or a line is no log entry.
    """
    result = Replay()
    try:
        lines = log.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFile(f"cannot be read: {error}", path=log) from error
    for number, line in enumerate(lines[:-1], start=1):
        try:
            result.add(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            hint = "it is written by parallelchange.local.load"
            raise InvalidFile(f"is no log entry: {error!r}", path=log, line=number, hint=hint) from error
    return result


def check(url: str, log: Path, *, state: Shape) -> CheckReport:
    """Compare the database with the log.

    Args:
        url: The shop's database.
        log: What the load acknowledged.
        state: Which shapes the schema has: the old, both or the new one.

    Raises:
        InvalidFile: The log cannot be used.
    """
    told = replay(log)
    lost = wrong = 0
    examples: list[str] = []
    libpq = url.replace("postgresql+psycopg://", "postgresql://", 1)
    with psycopg.connect(libpq, application_name="load-checker") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        cursor = connection.cursor()
        _load(cursor, told)
        for query, is_lost in _queries(state):
            count, shown = _run(cursor, query)
            lost, wrong = (lost + count, wrong) if is_lost else (lost, wrong + count)
            examples += shown
        rows = cursor.execute("SELECT count(*) FROM customers").fetchone()
        connection.rollback()
    verdict = Verdict.FAIL if lost or wrong else Verdict.PASS if told.acknowledged else Verdict.UNKNOWN
    return CheckReport(
        verdict=verdict,
        state=state,
        acknowledged_writes=told.acknowledged,
        uncertain_writes=told.uncertain,
        lost_writes=lost,
        wrong_rows=wrong,
        rows=rows[0] if rows else 0,
        examples=tuple(examples[:EXAMPLES]),
    )


def _load(cursor: psycopg.Cursor[Any], told: Replay) -> None:
    """Put what must be there beside what is there."""
    cursor.execute(TABLES)
    with cursor.copy("COPY acked_customers FROM STDIN") as copy:
        copy.set_types(["int8", "text[]", "text[]"])
        for customer in told.last:
            copy.write_row((customer, told.accepted(customer, "name"), told.accepted(customer, "email")))
    with cursor.copy("COPY acked_orders FROM STDIN") as copy:
        for order in told.orders:
            copy.write_row(order)
    cursor.execute("ANALYZE acked_customers, acked_orders")


def _queries(state: Shape) -> Iterator[tuple[sql.Composable, bool]]:
    """Each query, one line of words per row found, and whether a row is a lost write or a wrong row."""
    yield sql.SQL(MISSING), True
    told = [("email", "c.email", "emails"), *(("name", found, "names") for found in NAMES[state])]
    for label, found, accepted in told:
        parts = {"label": label, "found": found, "accepted": accepted}
        yield sql.SQL(VALUE).format(**{key: sql.SQL(part) for key, part in parts.items()}), True
    yield sql.SQL(ORDERS_LOST), True
    yield sql.SQL(ORDERS_TWICE), False
    if state == "expanded":
        yield sql.SQL(DISAGREE).format(new=sql.SQL(f"({NEW_NAME})")), False


def _run(cursor: psycopg.Cursor[Any], query: sql.Composable) -> tuple[int, list[str]]:
    numbered = sql.SQL("SELECT count(*) OVER (), told FROM ({}) AS found (told) LIMIT {}")
    rows = cursor.execute(numbered.format(query, EXAMPLES)).fetchall()
    return (rows[0][0] if rows else 0), [told for _, told in rows]
