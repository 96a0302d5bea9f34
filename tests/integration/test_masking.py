"""Masking: what is masked is nowhere in the copy, and keys still lead where they led."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from parallelchange.adapters.postgres.connection import connect
from parallelchange.change import Mask, RehearsalSpec
from parallelchange.errors import InvalidFile, Unavailable
from parallelchange.local.copy import copy_database
from parallelchange.local.mask import SourceColumn, SourceTable, expression
from parallelchange.local.postgres import client_programs
from parallelchange.model import TableName

PATH = Path("change.yaml")
MARK = "§"
"""Every secret text begins with it, and no hash has it."""
_numbers = count(1)

SHOP = """
CREATE DOMAIN address AS varchar(60) CHECK (VALUE <> '');
CREATE TABLE customers (
  id int PRIMARY KEY, email address NOT NULL UNIQUE, short varchar(5), padded char(20), phone text, code uuid UNIQUE,
  raw bytea, small int2, big int8 UNIQUE, money numeric(20, 2), any_ numeric, ratio float8, note text,
  shout text GENERATED ALWAYS AS (upper(note)) STORED);
CREATE TABLE orders (id int PRIMARY KEY,
  email address REFERENCES customers (email), big int8 REFERENCES customers (big));
CREATE TABLE logins (email text, at date) PARTITION BY RANGE (at);
CREATE TABLE logins_1 PARTITION OF logins FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
CREATE MATERIALIZED VIEW seen AS SELECT note, phone FROM customers;
CREATE INDEX customers_note ON customers (lower(note));
"""
RULES = {
    "customers.email": "hash", "customers.short": "hash", "customers.padded": "hash", "public.customers.phone": "null",
    "customers.code": "hash", "customers.raw": "hash", "customers.small": "hash", "customers.big": "hash",
    "customers.money": "hash", "customers.any_": "hash", "customers.ratio": "hash",
    "customers.note": {"sql": "replace(left(customers.note, 1), '§', 'x') || length(note) -- as short as that"},
    "orders.email": "hash", "orders.big": "hash", "logins.email": "hash",
}  # fmt: skip


def rules(given_: dict[str, Any], rows: int = 1000) -> RehearsalSpec:
    found = []
    for name, rule in given_.items():
        table, _, column = name.rpartition(".")
        text = rule["sql"] if isinstance(rule, dict) else None
        kind = "sql" if text is not None else rule
        found.append(
            Mask(
                table=TableName.parse(table), column=column, rule=kind, expression=text, path=PATH, line=next(_numbers)
            )
        )
    return RehearsalSpec(rows=rows, mask=tuple(found))


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    with connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def run(url: str, statements: str) -> None:
    with connect(url) as connection:
        connection.execute(statements.encode())


@pytest.fixture
def source(postgres: Any) -> Iterator[str]:
    yield from _database(postgres)


@pytest.fixture
def target(postgres: Any) -> Iterator[str]:
    yield from _database(postgres)


def _database(postgres: Any) -> Iterator[str]:
    name = f"mask_{uuid.uuid4().hex[:12]}"
    run(postgres.get_uri(), f"CREATE DATABASE {name}")
    yield postgres.get_uri(database=name)
    run(postgres.get_uri(), f"DROP DATABASE {name} WITH (FORCE)")


letters = st.characters(exclude_categories=("Cs", "Cc", "Cn"), max_codepoint=0xFFFF)
texts = st.text(letters, min_size=1, max_size=20).map(lambda text: MARK + text)
customers = st.tuples(
    texts,
    texts.map(lambda text: text[:5]),
    texts.map(lambda text: text[:20]),
    texts,
    st.uuids(),
    st.binary(min_size=8, max_size=30),
    st.integers(-(2**15), 2**15 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.decimals(-(10**12), 10**12, places=2),
    st.decimals(-(10**20), 10**20, places=9),
    st.floats(width=64),
    texts,
)


# Without shrinking: each example makes two databases.
@settings(max_examples=6, phases=[Phase.generate])
@given(
    rows=st.lists(customers, min_size=1, max_size=30, unique_by=(lambda r: r[0], lambda r: r[4], lambda r: r[7])),
    taken=st.integers(1, 40),
)
def test_no_masked_value_is_anywhere_in_the_copy(postgres: Any, rows: list[Any], taken: int) -> None:
    for source, target in zip(_database(postgres), _database(postgres), strict=True):
        run(source, SHOP)
        with psycopg.connect(source) as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO customers VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [(i, *row) for i, row in enumerate(rows)],
            )
            cursor.execute("INSERT INTO orders SELECT 100 - id, email, big FROM customers")
            cursor.execute("INSERT INTO logins SELECT email, '2027-03-04' FROM customers")
            cursor.execute("REFRESH MATERIALIZED VIEW seen")
        copy_database(source, target, client_programs(), spec=rules(RULES, taken))
        dump = subprocess.run(
            [client_programs() / "pg_dump", "-d", target], check=True, capture_output=True, text=True
        ).stdout
        dump += str(ask(target, "SELECT * FROM pg_stats WHERE schemaname = 'public'"))
        assert MARK not in dump
        for row in rows:
            assert str(row[4]) not in dump
            assert row[5].hex() not in dump
        assert ask(target, "SELECT count(*) FROM customers") == [(min(len(rows), taken) + missing(len(rows), taken),)]
        # Everybody still has his own order, under another name.
        lost = "SELECT count(*) FROM orders o LEFT JOIN customers c USING (email, big)"
        lost += " WHERE c.id IS DISTINCT FROM 100 - o.id"
        assert ask(target, lost) == [(0,)]
        assert ask(target, "SELECT count(*) FROM customers WHERE shout <> upper(note) OR phone IS NOT NULL") == [(0,)]
        assert ask(target, "SELECT bool_and(length(short) <= 5 AND small IS NOT NULL) FROM customers") == [(True,)]


def missing(rows: int, taken: int) -> int:
    """How many customers only the orders need: orders are in the other order, but both ends are taken of both."""
    head, tail = taken - taken // 2, taken // 2
    if rows <= taken:
        return 0
    own = {*range(head), *range(rows - tail, rows)}
    return len({*range(tail), *range(rows - head, rows)} - own)


@pytest.mark.parametrize(
    ("base", "values"),
    [
        ("int2", "SELECT generate_series(-32768, 32767)"),
        ("int4", "SELECT i * 104729 FROM generate_series(-9000, 9000) i UNION ALL VALUES (-2147483648), (2147483647)"),
        ("int8", "SELECT i * 104729::int8 * 7919 FROM generate_series(-9000, 9000) i"),
        ("int8", "VALUES (-9223372036854775808), (9223372036854775807), (1), (-1)"),
        ("uuid", "SELECT gen_random_uuid() FROM generate_series(1, 3000)"),
        ("numeric", "SELECT i * 1.5 FROM generate_series(1, 3000) i"),
        ("float8", "SELECT i * 1.5 FROM generate_series(1, 3000) i"),
        ("text", "SELECT 'x' || i FROM generate_series(1, 3000) i"),
        ("bytea", "SELECT decode(md5(i::text), 'hex') FROM generate_series(1, 3000) i"),
    ],
)  # fmt: skip
def test_what_is_unique_stays_unique(source: str, base: str, values: str) -> None:
    column = SourceColumn("v", base, base, base, -1, required=False, generated=False)
    table = SourceTable(1, TableName("public", "t"), "r", True, (), frozenset(), 1, frozenset(), {"v": column})
    mask = rules({"t.v": "hash"}).mask[0]
    run(source, f"CREATE TABLE t (v {base}); INSERT INTO t {values}; INSERT INTO t VALUES (NULL)")
    for key in ("one key", "another's"):
        hashed = expression(table, "v", {(1, "v"): mask}, key)
        found = ask(
            source,
            f"SELECT count(v) = count(DISTINCT h), count(*) - count(h), count(*) FILTER (WHERE v = h) < 20"
            f" FROM (SELECT v, {hashed} AS h FROM t) x",
        )
        assert found == [(True, 1, True)]
        if base.startswith("int"):
            assert ask(source, f"SELECT count(*) FROM t WHERE v < 0 AND {hashed} >= 0 OR v >= 0 AND {hashed} < 0") == [
                (0,)
            ]


@pytest.mark.parametrize(
    ("column", "sql", "says"),
    [
        ("customers.note", "left(nothing, 3)", 'column "nothing" does not exist'),
        ("customers.note", "left(note,", "syntax error"),
        ("customers.note", "max(note)", "must appear in the GROUP BY"),
        ("customers.note", "regexp_split_to_table(note, ' ')", "set-returning functions are not allowed"),
        (
            "customers.note",
            "note)) AS text) FROM customers; DROP TABLE orders; SELECT CAST(COALESCE((1",
            "multiple commands",
        ),
        ("customers.id", "ARRAY[note]", "cannot cast"),
    ],
)
def test_an_expression_the_server_refuses(source: str, target: str, column: str, sql: str, says: str) -> None:
    run(source, SHOP)
    with pytest.raises(InvalidFile) as caught:
        copy_database(source, target, client_programs(), spec=rules({column: {"sql": sql}}))
    assert says in caught.value.message
    assert caught.value.line
    assert f"rehearsal.mask.public.{column}" in caught.value.message
    assert ask(source, "SELECT count(*) FROM orders") == [(0,)]


@pytest.mark.parametrize(
    ("column", "rule"),
    [
        ("customers.note", {"sql": "(note::int)::text"}),  # the source fails on a value
        ("customers.email", {"sql": "''"}),  # the source's domain refuses it
        ("customers.note", {"sql": "'too long a note'"}),  # the copy's check refuses it
    ],
)
def test_values_the_table_does_not_take_are_told_without_them(
    source: str, target: str, column: str, rule: dict[str, str]
) -> None:
    run(source, "CREATE DOMAIN address AS varchar(60) CHECK (VALUE <> ''); CREATE TABLE customers (id int PRIMARY KEY,"
        " email address, note text CHECK (length(note) < 13), other text);"
        " INSERT INTO customers VALUES (1, 's3cret@x', 's3cret note', 's3cret too')")  # fmt: skip
    spec = rules({column: rule})
    with pytest.raises(InvalidFile) as caught:
        copy_database(source, target, client_programs(), spec=spec)
    assert caught.value.line == spec.mask[0].line
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_rule_that_makes_rows_alike_is_told_without_them(source: str, target: str) -> None:
    run(
        source,
        "CREATE TABLE t (id int PRIMARY KEY, a text UNIQUE); INSERT INTO t VALUES (1, 's3cret 1'), (2, 's3cret 2')",
    )
    with pytest.raises(Unavailable, match=r"could not create unique index|t_a_key") as caught:
        copy_database(source, target, client_programs(), spec=rules({"t.a": {"sql": "left(a, 6)"}}))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["nothing.a", "other.customers.a", "customers.nothing", "seen.note"])
def test_what_is_not_there_is_told(source: str, target: str, name: str) -> None:
    run(source, SHOP)
    with pytest.raises(InvalidFile, match=r"has no (table|column)") as caught:
        copy_database(source, target, client_programs(), spec=rules({name: "hash"}))
    assert caught.value.line
