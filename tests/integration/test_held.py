"""A session that is open while the schema changes sees what a new one does not."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from parallelchange.adapters.postgres.describing import describing
from parallelchange.adapters.postgres.held import held
from parallelchange.adapters.postgres.statements import ask_all
from parallelchange.corpus import Corpus
from parallelchange.gates import shape
from parallelchange.model import Verdict
from parallelchange.recording import Event, build

SCHEMA = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE t (id int PRIMARY KEY, note text, felt mood, plain text);
CREATE FUNCTION tenth(n int) RETURNS int LANGUAGE sql AS 'SELECT n / 10'
"""
SENT = {
    "named": "SELECT id, note FROM t WHERE id = $1",
    "typed": "SELECT id FROM t WHERE felt = $1",
    "called": "SELECT tenth($1)",
    "other": "SELECT plain FROM t WHERE id = $1",
}


def corpus_of(url: str, *, prepared: bool) -> Corpus:
    values = {"typed": "good"}
    events = [Event("s", sql, (values.get(name, "1"),), prepared=prepared) for name, sql in SENT.items()]
    with describing(url) as describe:
        return build("v1", events, describe).corpus


def said(url: str, ddl: str, *, prepared: bool = True) -> dict[str, str]:
    """What is said against each statement after a DDL."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SCHEMA)
        corpus = corpus_of(url, prepared=prepared)
        with held(url, corpus, None) as holding:
            connection.execute(ddl)
            facts = holding.told(ask_all(url, corpus, role=None, on_copy=True))
    names = {sql: name for name, sql in SENT.items()}
    told = {names[fact.sql]: fact.held or fact.error or "" for fact in facts}
    held_ = any(fact.held for fact in facts)
    assert not held_ or shape.judge("v1", facts).verdict is Verdict.FAIL
    return {name: why for name, why in told.items() if why}


def here(command: str) -> str:
    return f"DO $$ BEGIN EXECUTE format('{command}', current_database()); END $$"


@pytest.mark.parametrize(
    ("ddl", "expected"),
    [
        ("SELECT", {}),
        ("CREATE INDEX ON t (note)", {}),
        ("ALTER TABLE t ADD COLUMN more int", {}),
        ('ALTER TABLE t ALTER note TYPE text COLLATE "C"', {"named": "cached plan must not change result type"}),
        ("ALTER TABLE t ALTER felt TYPE text; DROP TYPE mood", {"typed": "there is no type public.mood any more"}),
        ("CREATE FUNCTION tenth(n bigint) RETURNS int LANGUAGE sql AS 'SELECT 1'", {"called": "is not unique"}),
        ("ALTER TABLE t DROP COLUMN plain", {"other": 'column "plain" does not exist'}),
    ],
)
def test_what_a_session_that_was_there_before_is_told(database: str, ddl: str, expected: dict[str, str]) -> None:
    found = said(database, ddl)
    assert found.keys() == expected.keys()
    assert all(expected[name] in why for name, why in found.items())


def test_what_is_not_prepared_takes_another_collation(database: str) -> None:
    assert said(database, 'ALTER TABLE t ALTER note TYPE text COLLATE "C"', prepared=False) == {}


@pytest.mark.parametrize("prepared", [True, False])
def test_a_session_keeps_its_search_path(database: str, prepared: Any) -> None:
    moved = "CREATE SCHEMA s; ALTER TABLE t SET SCHEMA s;" + here("ALTER DATABASE %I SET search_path = public, s")
    found = said(database, moved, prepared=prepared)
    assert found.keys() == {"named", "typed", "other"}
    assert all('relation "t" does not exist' in why for why in found.values())
