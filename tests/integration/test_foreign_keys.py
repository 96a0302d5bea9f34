"""Whatever refers to whatever: a copy has all that its rows refer to, and nothing is left out to make it so."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from parallelchange.adapters.postgres.connection import connect
from parallelchange.change import RehearsalSpec
from parallelchange.local import sample
from parallelchange.local.copy import copy_database
from parallelchange.local.postgres import client_programs

TABLES = 5
ROWS = 30


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    with connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def statements(edges: list[tuple[int, int, bool]], seed: int) -> str:
    """Tables with a key of two columns; every edge is a foreign key, on one column or on both."""
    chance = random.Random(seed)
    made = []
    for table in range(TABLES):
        own = [place for place, (child, _, _) in enumerate(edges) if child == table]
        columns = "".join(f", r{place} int, s{place} text" for place in own)
        made.append(f'CREATE TABLE t{table} (id int UNIQUE, "Part" text, PRIMARY KEY (id, "Part"){columns})')
        for row in range(ROWS):
            values = "".join(
                f", {other}, {text}" for place in own for other, text in [_reference(chance, both=edges[place][2])]
            )
            made.append(f"INSERT INTO t{table} VALUES ({row}, 'p{row}'{values})")
    for place, (child, parent, both) in enumerate(edges):
        pair, refers = (f"r{place}, s{place}", '(id, "Part")') if both else (f"r{place}", "(id)")
        made.append(f"ALTER TABLE t{child} ADD FOREIGN KEY ({pair}) REFERENCES t{parent} {refers}")
    return "; ".join(made)


def _reference(chance: random.Random, *, both: bool) -> tuple[str, str]:
    row = chance.randrange(ROWS)
    # MATCH SIMPLE: half a key refers to nothing, and the other half may be anything.
    if chance.random() < 0.2:
        return ("NULL", "'nobody'") if both else ("NULL", "NULL")
    return str(row), f"'p{row}'"


places = st.integers(0, TABLES - 1)


@settings(max_examples=6, phases=[Phase.generate])
@given(
    edges=st.lists(st.tuples(places, places, st.booleans()), min_size=1, max_size=8),
    seed=st.integers(0, 9999),
    rows=st.integers(1, 8),
    batch=st.sampled_from([1, 3, 10_000]),
)
def test_a_copy_is_closed(postgres: Any, edges: list[tuple[int, int, bool]], seed: int, rows: int, batch: int) -> None:
    names = [f"keys_{uuid.uuid4().hex[:12]}" for _ in range(2)]
    with connect(postgres.get_uri()) as admin:
        for name in names:
            admin.execute(f"CREATE DATABASE {name}".encode())
    source, target = (postgres.get_uri(database=name) for name in names)
    with connect(source) as connection:
        connection.execute(statements(edges, seed).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "_BATCH", batch)
        copied = copy_database(source, target, client_programs(), spec=RehearsalSpec(rows=rows))
    expected = closure(source, edges, rows)
    found = {(t, row[0]) for t in range(TABLES) for row in ask(target, f"SELECT id FROM t{t}")}
    # Exactly what was taken and what that needs: nothing is missing, and nothing came twice.
    assert found == expected
    assert copied == len(expected)
    with connect(postgres.get_uri()) as admin:
        for name in names:
            admin.execute(f"DROP DATABASE {name}".encode())


def closure(source: str, edges: list[tuple[int, int, bool]], rows: int) -> set[tuple[int, int]]:
    """What a copy should have, worked out row by row from the whole source."""
    head, tail = rows - rows // 2, rows // 2
    waiting = [(t, i) for t in range(TABLES) for i in (*range(head), *range(ROWS - tail, ROWS))]
    found: set[tuple[int, int]] = set()
    content = {t: {row["id"]: row for (row,) in ask(source, f"SELECT to_jsonb(x) FROM t{t} x")} for t in range(TABLES)}
    while waiting:
        table, row = waiting.pop()
        if (table, row) in found:
            continue
        found.add((table, row))
        for place, (child, parent, _) in enumerate(edges):
            if child == table and content[table][row][f"r{place}"] is not None:
                waiting.append((parent, content[table][row][f"r{place}"]))
    return found
