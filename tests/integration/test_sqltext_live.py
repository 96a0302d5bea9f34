"""Where statements end, held against what a real server takes a text for."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.pq import ExecStatus

from parallelchange.sqltext import fill, split, template

ATOMIC = (
    "CREATE OR REPLACE FUNCTION pg_temp.f(n int) RETURNS int BEGIN ATOMIC SELECT CASE WHEN n > 0 THEN 1 END;"
    " SELECT 2; END"
)
PIECES = st.sampled_from([
    "SELECT 1", "SELECT 'a;b'", "SELECT E'\\';'", "SELECT '\\'", "SELECT $$;$$", "SELECT $t$ $$;$$ $t$",
    'SELECT 1 AS ";"',
    "SELECT U&'\\0061;'", "SELECT /* ; /* ; */ ' */ 2", "SELECT 3 -- ; '\n", "SELECT 5--;\n-1", "SELECT 'a'\n';b'",
    "SELECT '[1]'::jsonb @> '1', '{}'::jsonb ? ';', '{}'::jsonb->>'a'", "SELECT (ARRAY[1,2])[1:2]", "VALUES (1), (2)",
    "SELECT CASE WHEN true THEN 1 END", "SELECT 1 AS end", "DO $b$ BEGIN PERFORM 1; END $b$", "SELECT interval'1 day'",
    "SELECT 1e3, .5, 0x1F, 1_000", "SELECT 1 AS é€, 2 AS a$b$c", "SELECT 1\xa0", "SET application_name = 'a;b'",
    ATOMIC,
    "SELECT N'a', B'01', X'1f'", "SELECT 'x' 'y'", "SELEC 1", "SELECT 'open", "SELECT /* open", "SELECT $$ open", "",
])  # fmt: skip


@pytest.fixture(scope="module")
def session(postgres: object) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:  # type: ignore[attr-defined]
        yield connection


def results(session: psycopg.Connection, sql: str) -> int | None:
    """How many statements the server ran; None when it refused them."""
    pg = session.pgconn
    pg.send_query(sql.encode())
    count: int | None = 0
    while True:
        while pg.is_busy():
            pg.consume_input()
        result = pg.get_result()
        if result is None:
            return count
        if result.status == ExecStatus.FATAL_ERROR:
            count = None
        elif result.status != ExecStatus.EMPTY_QUERY and count is not None:
            count += 1


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, max_size=5), st.sampled_from([";", " ; ", ";\n", ";;", "; -- ;\n", "; /* ; */ "]))
def test_split_as_the_server_does(session: psycopg.Connection, pieces: list[str], between: str) -> None:
    sql = between.join(pieces)
    ran = results(session, sql)
    if ran is None:
        split(sql)  # whatever it is, it does not raise
        return
    statements = split(sql)
    assert len(statements) == ran
    # Each by itself is one statement, and so it is with its literals out and in again.
    for statement in statements:
        assert results(session, statement) == 1, statement
        taken = template(statement)
        assert results(session, fill(taken.sql, taken.literals)) == 1, taken
